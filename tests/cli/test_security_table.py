"""Walks through the table of docs/security.md: each verb runs what its row says, and no more."""

from __future__ import annotations

import os
import re
from inspect import signature
from pathlib import Path

import modelspeed
import pico
import pytest
from modelspeed.cli.main import app
from modelspeed.reporting.json import dumps
from sample_record import record
from typer.main import get_command
from typer.testing import CliRunner

OTHER = 12345
DOC = Path(__file__).parents[2] / "docs" / "security.md"
CELL = re.compile(r"`([^`]+)`")


def rows():
    lines = [t.strip("| ") for t in DOC.read_text().splitlines() if t.startswith("| `")]
    cells = [[c.strip() for c in line.split(" | ")] for line in lines]
    return {CELL.findall(c[0])[0]: (c[2], set(CELL.findall(c[3] if len(c) > 3 else "")))
            for c in cells}  # fmt: skip


COMMANDS = get_command(app).commands
VERBS = sorted(set(rows()) - {"modelspeed.load"})


def test_each_verb_has_a_row():
    assert set(VERBS) == set(COMMANDS)


@pytest.mark.parametrize("verb", VERBS)
def test_the_flags_of_trust_are_those_of_the_row(verb):
    given = {o for p in COMMANDS[verb].params for o in p.opts}
    options = {o for o in given if o.startswith("--trust-") or o == "--import"}
    assert options == rows()[verb][1]
    code = rows()[verb][0]
    assert ("recipe" in code) == ("--trust-code" in options)
    assert ("compiled" in code) == ("--trust-compiled" in options)


def test_load_takes_the_flag_of_its_row():
    taken = {f"{n}=" for n in signature(modelspeed.load).parameters if n.startswith("trust")}
    assert taken == rows()["modelspeed.load"][1]


WORDS = {
    "tune": ("ckpt.pt", "--target-ms", "5"), "apply": ("ckpt.pt",), "profile": ("ckpt.pt",),
    "ladder": ("ckpt.pt",), "ladder simulate": (".", "--arrivals", "poisson:1", "--slo-ms", "9"),
    "batch": ("ckpt.pt", "--out", "o", "--target-ms", "5"), "init": ("ckpt.pt", "--out", "i.yaml"),
    "show": (".",), "compare": (".", "."), "export": (".",), "check": (".",), "list": (),
    "doctor": ("--no",), "demo": ("--no",),
}  # fmt: skip


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files away")
@pytest.mark.parametrize("verb", VERBS)
def test_in_a_folder_of_another_user_no_verb_runs_its_code(verb, tmp_path, monkeypatch):
    monkeypatch.delenv("SUDO_UID", raising=False)
    pico.project(tmp_path, pico.RECIPE.replace("- prune", "- prune: {ratio: 0.25}"))
    mark = f"open({str(tmp_path / 'RAN')!r}, 'w')\n"
    for name in ("model", "data", "torch", "yaml", "typer", "sitecustomize"):
        file = tmp_path / f"{name}.py"
        file.write_text(mark + (file.read_text() if file.exists() else ""))
    (tmp_path / "report.json").write_text(dumps(record(source="ckpt.pt")))
    for path in tmp_path.iterdir():
        os.chown(path, OTHER, -1)
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, [verb, *WORDS[verb]])
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    assert not (tmp_path / "RAN").exists() and ": unexpected" not in done.stderr
    refuses = "recipe" in rows()[verb][0] and verb != "check"  # nothing here is an artifact
    assert ("--trust-code" in done.stderr) == refuses
