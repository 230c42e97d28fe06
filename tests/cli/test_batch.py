"""`modelspeed batch` as a user calls it: planted failures, what it leaves and exits with."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pico
import pytest
from modelspeed.batch import plan
from modelspeed.cli.main import app
from typer.testing import CliRunner

FAST = "from quick import hasten; from modelspeed.cli.main import main; hasten(setattr); main()"
BAD_FILE = (
    pico.MODEL_FILE
    + """
import os, signal

def greedy():
    return nn.Sequential(build(), nn.Linear(1 << 16, 1 << 15))

def deadly():
    os.kill(os.getpid(), signal.SIGKILL)
"""
)
JOBS = """
version: 1
out: fast
memory_limit: 3GB
retries: 0
defaults: {target_ms: 1000, threads: 1}
jobs:
  - {checkpoint: good/one.pt}
  - {checkpoint: good/one.pt, name: infeasible, target_ms: 0.0001}
  - {checkpoint: bad/corrupt.pt}
  - {checkpoint: bad/class.pt, model: "bad/model.py:nothing_like_it"}
  - {checkpoint: bad/memory.pt, model: "bad/model.py:greedy"}
  - {checkpoint: bad/killed.pt, model: "bad/model.py:deadly"}
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("MODELSPEED_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PYTHONPATH", str(Path(pico.__file__).parent))
    monkeypatch.setattr(plan, "TUNE", (sys.executable, "-c", FAST, "tune"))
    monkeypatch.chdir(tmp_path)
    recipe = pico.RECIPE.replace("  - finetune: {epochs: 1, bn_batches: 2}\n", "")
    checkpoint = pico.project(tmp_path / "good", recipe)
    checkpoint.rename(checkpoint.with_name("one.pt"))
    shutil.copytree(tmp_path / "good", tmp_path / "bad")
    (tmp_path / "bad" / "model.py").write_text(BAD_FILE)
    for name in ("class", "memory", "killed"):
        shutil.copy(tmp_path / "good" / "one.pt", tmp_path / "bad" / f"{name}.pt")
    (tmp_path / "bad" / "corrupt.pt").write_bytes(b"PK\x03\x04 and no more")
    (tmp_path / "jobs.yaml").write_text(JOBS)
    return tmp_path


def run(*words):
    done = CliRunner().invoke(app, ["batch", *map(str, words)])
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done.exit_code, done.stdout, done.stderr


@pytest.mark.long
def test_planted_failures_are_rows_and_what_can_be_done_is_done(folder):
    code, out, err = run("jobs.yaml", "--workers", "2", "--json")
    rows = {row["name"]: row for row in json.loads(out)["items"]}
    assert code == 1 and "Traceback" not in err
    assert {name: row["status"] for name, row in rows.items()} == {
        "one": "met", "infeasible": "missed", "corrupt": "failed",
        "class": "failed", "memory": "out of memory", "killed": "killed",
    }, rows  # fmt: skip
    assert "corrupt.pt` is truncated" in rows["corrupt"]["reason"]
    assert "nothing_like_it" in rows["class"]["reason"]
    fast = folder / "fast"
    written = {p.name for p in fast.iterdir()}
    assert written == {"one", "infeasible", "logs", "batch.jsonl", "index.html", "index.md",
                       "index.json"}  # fmt: skip
    assert (fast / "one" / "model.pt2").is_file() and "one: met" in err
    assert "1 of 6 met; 2 failed" in (fast / "index.md").read_text()
    code, out, err = run("jobs.yaml", "--json", "--resume")
    assert code == 1 and all(row["reused"] for row in json.loads(out)["items"])


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["good/one.pt"], "--out"),
        (["none/*.pt", "--out", "o"], "matches no file"),
        (["good/one.pt", "--out", "o", "--memory-limit", "much"], "--memory-limit"),
        (["good/one.pt", "--out", "o", "--target-ms", "1", "--fastest"], "--fastest"),
        (["good/one.pt", "--out", "o", "--target-ms", "-1"], "--target-ms"),
        (["gone.yaml"], "gone.yaml"),
    ],
)
def test_a_mistake_of_the_whole_is_said_once_and_leaves_nothing(folder, words, part):
    code, _, err = run(*words)
    assert code == 2 and part in err and err.count("modelspeed: ") == 1
    assert not (folder / "o").exists() and not (folder / "fast").exists()
