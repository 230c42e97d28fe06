from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pico
import pytest
import shared_training
import torch
from modelspeed.training.process_group import ProcessGroup

RECIPE = "modelspeed.yaml"


def launch(*words, cwd, count=2):
    """Exit code, stdout and stderr of `count` processes under `torchrun`."""
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(count)]
    env = {**os.environ, "MODELSPEED_CACHE": str(cwd / "cache"), "PYTHONWARNINGS": "ignore"}
    done = subprocess.run(
        [*command, *map(str, words)], cwd=cwd, env=env, capture_output=True, text=True, check=False
    )
    return done.returncode, done.stdout, done.stderr


@pytest.fixture
def folder(tmp_path):
    return pico.project(tmp_path / "user").parent


def launched(folder, verb, *more, count=2):
    words = ["-m", "modelspeed", verb, "ckpt.pt", "--threads", "1", "--out", "fast", *more]
    return launch(*words, cwd=folder, count=count)


def said(stderr):
    return [line for line in stderr.splitlines() if line.startswith("modelspeed: ")]


def test_gradients_and_weights_are_those_of_one_process_with_the_whole_batch(tmp_path):
    code, _, err = launch(Path(shared_training.__file__), tmp_path, cwd=tmp_path)
    assert code == 0, err
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1))
    alone = shared_training.trained(ProcessGroup(), 8)
    for mine, other, wanted in zip(first, second, alone, strict=True):
        for name in wanted:
            assert torch.equal(mine[name], other[name])
            torch.testing.assert_close(mine[name], wanted[name], rtol=1e-4, atol=1e-6)


@pytest.mark.long
def test_two_processes_write_one_artifact_and_one_report(folder):
    code, out, err = launched(folder, "tune", "--fastest", "--max-drop", "0.9", "--json")
    assert code == 0, err
    step = next(s for s in json.loads(out)["steps"] if s["adjuster"] == "finetune")
    # An epoch of two batches is one step where each process takes one.
    assert step["status"] != "skipped" and step["reason"].startswith("1 steps at")
    assert err.count("written to fast") == err.count("loading ...") == 1
    made = {"fast", "cache", "__pycache__"}
    assert {p.name for p in folder.iterdir()} - made == {"ckpt.pt", "model.py", "data.py", RECIPE}


def test_a_mistake_is_told_once_by_the_first_process(folder):
    (folder / "ckpt.pt").write_text("hello")
    code, out, err = launched(folder, "tune", "--target-ms", "1000")
    assert code != 0 and out == "" and not (folder / "fast").exists()
    assert len(said(err)) == 1 and "not a checkpoint" in said(err)[0]


@pytest.mark.long
def test_what_fails_while_all_train_is_told_once_too(folder):
    text = (folder / RECIPE).read_text()
    (folder / RECIPE).write_text(text.replace("  - prune\n", ""))
    code, _, err = launched(folder, "apply", count=3)
    assert code != 0 and not (folder / "fast").exists()
    assert len(said(err)) == 1 and "3 processes can't share 2 batches" in said(err)[0]
