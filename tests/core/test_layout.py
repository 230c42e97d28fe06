"""The import law, lazy start-up and what a wheel holds."""

from __future__ import annotations

import subprocess
import sys
import zipfile

import imports
import pytest
from imports import ROOT

# A room imports only rooms of lower floors (and itself): siblings never import each other.
FLOORS = [
    ("core",),
    ("configs", "reporting"),
    ("graph", "profiling"),
    ("backends", "checkpoints"),
    ("adjusters", "data", "runtime"),
    ("search", "training"),
    ("tuning",),
    ("batch",),
    ("cli",),
]
FLOOR = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
ONLY = {"reporting": {"core"}}
# The same within a room, by the longest prefix that fits.
GRAPH = [
    ("graph/",),
    ("graph/edits/", "graph/source/"),
    ("graph/analysis/", "graph/lowering/"),
]
ANALYSIS = [
    ("graph/analysis/labels", "graph/analysis/walk"),
    ("graph/analysis/rules/",),
    ("graph/analysis/rules/table",),
    ("graph/analysis/labeling",),
    ("graph/analysis/groups",),
    ("graph/analysis/constancy",),
]
IMPORTS = imports.graph()


def room(name: str) -> str:
    return name.partition("/")[0]


def floor(name: str, law: list[tuple[str, ...]]) -> tuple[int, str] | None:
    """The floor of a file and the prefix that put it there."""
    fits = [(len(p), number, p) for number, row in enumerate(law) for p in row
            if name.startswith(p)]  # fmt: skip
    return max(fits)[1:] if fits else None


@pytest.mark.parametrize("name", sorted(FLOOR))
def test_rooms_import_only_lower_rooms(name):
    for path, others in IMPORTS.items():
        for other in others if room(path) == name else ():
            assert room(other) == name or FLOOR[room(other)] < FLOOR[name], f"{path} <- {other}"
            assert room(other) in {name, *ONLY.get(name, FLOOR)}, f"{path} <- {other}"


@pytest.mark.parametrize("law", [GRAPH, ANALYSIS])
def test_wings_import_only_lower_wings(law):
    for path, others in IMPORTS.items():
        here = floor(path, law)
        for other in others if here else ():
            there = floor(other, law)
            fits = there is None or there == here or there[0] < here[0]
            assert fits or {here[1], there[1]} <= set(law[0]), f"{path} <- {other}"


def test_no_file_imports_itself_by_any_way():
    assert list(imports.cycles(IMPORTS)) == []


def test_a_cycle_would_be_seen():
    assert list(imports.cycles({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}})) == [
        ["a", "b", "c", "a"]
    ]


def test_the_face_reaches_the_runtime_alone():
    """`import modelspeed; modelspeed.load` must not need what tunes."""
    reached, open_ = set(), ["runtime/load.py", "runtime/export.py"]
    while open_:
        name = open_.pop()
        if name not in reached:
            reached.add(name)
            open_.extend(IMPORTS[name])
    assert {room(n) for n in reached} <= {
        "runtime", "backends", "checkpoints", "graph", "profiling", "core", "configs",
    }  # fmt: skip


def test_help_does_not_import_torch():
    code = (
        "import sys; from modelspeed.cli.main import app\n"
        "try: app(['--help'])\nexcept SystemExit: pass\n"
        "sys.exit(1 if 'torch' in sys.modules else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "tune" in done.stdout


def test_a_wheel_holds_one_top_level_name_and_all_data(tmp_path):
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "-q",
               "-w", str(tmp_path), str(ROOT)]  # fmt: skip
    subprocess.run(command, check=True, capture_output=True)
    names = zipfile.ZipFile(next(tmp_path.glob("*.whl"))).namelist()
    assert {n.partition("/")[0].partition("-")[0] for n in names} == {"modelspeed"}
    for needed in ("reporting/report.js", "reporting/index.js", "batch/child.py",
                   "configs/presets/scale_half.yaml",
                   "examples/digits/digits_resnet.pt", "graph/analysis/rules/table.py",
                   "graph/source/text.py"):  # fmt: skip
        assert f"modelspeed/{needed}" in names
