"""The import law, lazy start-up and what a wheel holds."""

from __future__ import annotations

import ast
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# Each room may import only rooms to its left (and itself); siblings share a level.
LEVELS = [
    {"core"}, {"configs", "reporting"}, {"checkpoints", "graph", "profiling"}, {"adjusters"},
    {"tuning"}, {"batch", "runtime"}, {"cli"},
]  # fmt: skip
ROOMS = {room: level for level, rooms in enumerate(LEVELS) for room in rooms}


def rooms_imported(path: Path) -> set[str]:
    depth = len(path.relative_to(ROOT).parts)
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level == depth and node.module:
            found.add(node.module.partition(".")[0])
    return found & set(ROOMS)


@pytest.mark.parametrize("room", sorted(r for r in ROOMS if (ROOT / r).is_dir()))
def test_rooms_import_only_lower_rooms(room):
    for path in (ROOT / room).rglob("*.py"):
        for other in rooms_imported(path) - {room}:
            assert ROOMS[other] < ROOMS[room], f"{path.relative_to(ROOT)} imports {other}"
            if room == "reporting":
                assert other == "core", f"{path.name} imports {other}"


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
                   "examples/digits/digits_resnet.pt", "graph/rules/table.py",
                   "graph/source/text.py"):  # fmt: skip
        assert f"modelspeed/{needed}" in names
