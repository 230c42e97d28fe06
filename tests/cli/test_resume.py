"""Killed, stopped and crashed runs go on with `--resume`."""

from __future__ import annotations

import errno
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pico
import pytest
from modelspeed.cli import progress
from modelspeed.cli.main import app
from modelspeed.tuning.stages import OPENING, SEARCH
from quick import hasten
from typer.testing import CliRunner

# The command line with short measurements, which kills itself where KILL_AT is first said.
KILLED = """
import os, signal
from quick import hasten
from modelspeed.cli import main, progress

def deadly(say):
    def said(live, text, *rest):
        say(live, text, *rest)
        if text.startswith(os.environ["KILL_AT"]):
            os.kill(os.getpid(), signal.SIGKILL)
    return said

hasten(setattr)
progress.Live.stage, progress.Live.note = map(deadly, (progress.Live.stage, progress.Live.note))
main.main()
"""
SUPPORT = str(Path(__file__).parents[1] / "support")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("MODELSPEED_CACHE", str(tmp_path / "cache"))
    return pico.project(tmp_path / "user").parent


def journal(folder):
    return sorted(p.name for p in (folder.parent / "cache" / "runs").glob("*/*"))


def killed(folder, at, *words):
    line = ["tune", "ckpt.pt", "--target-ms", "0.001", "--threads", "1", "--out", "o", "--json"]
    done = subprocess.run(
        [sys.executable, "-c", KILLED, *line, *words], cwd=folder, capture_output=True, text=True,
        env={**os.environ, "KILL_AT": at, "PYTHONPATH": str(Path(pico.__file__).parent)},
    )  # fmt: skip
    assert "Traceback" not in done.stderr, done.stderr
    return done


@pytest.mark.long
def test_a_run_killed_in_the_search_and_after_a_step_while_training_loses_one_stage(folder):
    begun = {p.name for p in folder.iterdir()}
    assert killed(folder, "tried:").returncode == -signal.SIGKILL
    assert [n[:-12] for n in journal(folder)] == [
        "001-baseline", "002-kernels", "003-lossless", "004-ranking", "005-widths", "006-trial",
    ]  # fmt: skip
    second = killed(folder, "fine-tuning", "--resume")
    assert second.returncode == -signal.SIGKILL and "tried" not in second.stderr
    assert "journal: baseline, kernels, lossless, ranking, widths, trial\n" in second.stderr
    assert [n[:-12] for n in journal(folder)[6:]] == ["007-choice", "008-prune"]
    assert {p.name for p in folder.iterdir()} - {"__pycache__"} == begun
    last = killed(folder, "never", "--resume")
    record = json.loads(last.stdout)
    assert "trial, choice, prune\n" in last.stderr and "searching" not in last.stderr
    assert last.returncode == 3 and journal(folder) == []
    assert "verifying in a fresh process" in last.stderr
    assert [s["adjuster"] for s in record["steps"]] == ["prune", "finetune", "fold_batchnorm"]
    assert record["steps"][0]["edits"] > 0 and record["steps"][0]["latency_before"] > 0
    assert (folder / "o" / "model.pt2").is_file()


class Heard(progress.Live):
    """What a terminal would show, as text; stopped by Ctrl-C before the stage `stop`."""

    stop, last = "", None

    def __init__(self):
        super().__init__()
        self.stages, self.coming = [], []
        Heard.last = self

    def expect(self, stages, seconds=None):
        super().expect(stages, seconds)
        self.coming = list(stages)

    def stage(self, text, total=None):
        super().stage(text, total)
        self.stages.append(text)
        if self.coming[:1] == [text]:
            self.coming.pop(0)
        if text == self.stop:
            raise KeyboardInterrupt


@pytest.fixture
def apply(folder, monkeypatch):
    """`apply` in this process with short measurements: exit code, stderr, stages gone through."""
    hasten(monkeypatch.setattr)
    monkeypatch.setattr(progress, "Live", Heard)
    recipe = pico.RECIPE.replace(
        "- prune", "- prune: {ratio: 0.5}\n  - scale: {factor: 0.5, first: 1}"
    )
    (folder / "modelspeed.yaml").write_text(recipe)

    def run(*words, stop="", verb="apply"):
        monkeypatch.setattr(Heard, "stop", stop)
        line = [verb, "ckpt.pt", "--threads", "1", "--out", str(folder / "o"), *words]
        monkeypatch.setattr(sys, "argv", ["modelspeed", *line])
        monkeypatch.chdir(folder)
        done = CliRunner().invoke(app, line)
        return done.exit_code, done.stderr

    return run


def test_apply_goes_on_and_says_how_after_ctrl_c(folder, apply):
    code, err = apply("--resume", stop="fine-tuning")
    assert code == 130 and "no journal of this run was found" in err
    assert err.endswith(f"ckpt.pt --threads 1 --out {folder / 'o'} --resume\n")
    assert len(journal(folder)) == 5
    code, err = apply("--resume")
    assert code == 0 and "journal: baseline, kernels, sizes, prune, scale\n" in err
    assert journal(folder) == [] and (folder / "o" / "model.pt2").is_file()
    assert not Heard.last.coming and Heard.last.stages[-1] == "verifying in a fresh process"


@pytest.mark.long
def test_tune_counts_its_stages_and_says_early_what_is_feasible(folder, apply):
    (folder / "modelspeed.yaml").write_text(pico.RECIPE)
    err = apply("--target-ms", "0.001", verb="tune")[1]
    steps = ("prune", "finetune", "fold_batchnorm")
    assert not Heard.last.coming and Heard.last.progress.tasks[0].completed == 10
    assert [s for s in Heard.last.stages if s in (*OPENING, *SEARCH, *steps)] == [
        *OPENING, *SEARCH, *steps,
    ]  # fmt: skip
    line = r"baseline \S+ ms, lossless \S+ ms, smallest reachable about \S+ ms, target 0.001 ms\n"
    assert len(re.findall(line, err)) == err.count("smallest reachable") == 1
    assert "out of reach" in err.partition("prune ...")[0]


@pytest.mark.long
def test_a_journal_is_only_used_for_the_same_job_and_only_if_asked(folder, apply):
    apply(stop="finetune")
    before = journal(folder)
    recipe = folder / "modelspeed.yaml"
    text = recipe.read_text()
    recipe.write_text(text.replace("0.5", "0.25"))
    assert "starts over" in apply("--resume", stop="measuring the baseline")[1]
    recipe.write_text(text)
    checkpoint = (folder / "ckpt.pt").read_bytes()
    pico.torch.save({k: 2 * v for k, v in pico.torch.load("ckpt.pt").items()}, "ckpt.pt")
    assert "starts over" in apply("--resume", stop="measuring the baseline")[1]
    (folder / "ckpt.pt").write_bytes(checkpoint)
    assert journal(folder) == before
    apply("--dry-run")
    assert journal(folder) == before
    err = apply(stop="choosing kernels")[1]
    assert "`--resume` would have gone on" in err and len(journal(folder)) == 1


@pytest.mark.long
def test_a_full_disk_costs_the_journal_and_not_the_run(folder, apply, monkeypatch):
    usual = Path.write_bytes

    def full(path, data):
        if any(part.startswith(".002-") for part in path.parts):
            raise OSError(errno.ENOSPC, "No space left on device")
        return usual(path, data)

    monkeypatch.setattr(Path, "write_bytes", full)
    code, err = apply()
    assert code == 0 and err.count("No space left") == 1
    assert (folder / "o" / "model.pt2").is_file() and journal(folder) == []
