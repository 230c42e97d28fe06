"""The final verdict is about the checkpoint that was tuned."""

from __future__ import annotations

import json
import signal
import subprocess
import sys

import pico
import pytest
from modelspeed.core.errors import MeasureError
from modelspeed.core.records import Target
from modelspeed.tuning import fresh_process
from modelspeed.tuning.job import Job
from modelspeed.tuning.verification import VerificationRequest, verify_here


def test_a_checkpoint_that_changed_while_it_was_tuned_gets_no_verdict(tmp_path):
    path = pico.project(tmp_path)
    inputs = ({"shape": [1, 1, 12, 12], "dtype": "float32"},)
    job = Job(str(path), Target(), "model.py:build", str(tmp_path), {}, inputs)
    (tmp_path / "fast").mkdir()
    manifest = {"format_version": 1, "source_sha256": "0" * 64, "runtime": "plain", "edits": [],
                "inputs": list(inputs), "sample": {"seed": 7, "outputs": []},
                "weights_sha256": ""}  # fmt: skip
    (tmp_path / "fast" / "modelspeed.json").write_text(json.dumps(manifest))
    with pytest.raises(MeasureError, match="was changed while it was tuned"):
        verify_here(VerificationRequest(job, str(tmp_path / "fast"), 1.0, 1.0, "version: 1", False))


ECHO = "import sys; print(1, flush=True); print(sys.stdin.read())"


def asked(script):
    words, pipe = (sys.executable, "-c", script), subprocess.PIPE
    return subprocess.Popen(words, stdin=pipe, stdout=pipe, stderr=pipe, text=True)


def test_a_process_that_never_ends_is_stopped_with_a_sentence(monkeypatch):
    monkeypatch.setattr(fresh_process, "LOOK", 0.2)
    process = asked("import time; time.sleep(600)")
    with pytest.raises(MeasureError, match="had not ended after 1 s and was stopped"):
        fresh_process.ended(process, "", 0.6)


def test_time_that_a_process_stands_still_for_others_is_not_its_own(monkeypatch):
    """The wall's clock goes on for several looks; that of work hardly does."""
    monkeypatch.setattr(fresh_process, "LOOK", 0.05)
    seconds = iter(range(10**6))
    monkeypatch.setattr(fresh_process, "working", lambda: 1e-3 * next(seconds))
    process = asked("import sys, time; time.sleep(0.4); print(sys.stdin.read())")
    done = fresh_process.ended(process, "hello", 0.3)
    assert done.stdout == "hello\n" and done.returncode == 0 and next(seconds) > 8


def test_the_process_that_was_started_ahead_is_taken_once(monkeypatch):
    made = []
    monkeypatch.setattr(fresh_process, "started", lambda: made.append(asked(ECHO)) or made[-1])
    with fresh_process.started_ahead():
        fresh_process.wait_for_imports()
        first, ahead = fresh_process.taken(), fresh_process.imported_ahead()
        second = fresh_process.taken()
        assert ahead == 1.0 and fresh_process.imported_ahead() == 0.0
        assert [first, second] == made
        for process in made:
            assert fresh_process.ended(process, "hello", 60.0).stdout.endswith("hello\n")
    with fresh_process.started_ahead():
        pass
    assert made[-1].returncode == -signal.SIGKILL  # nobody needed it


def test_one_that_is_never_asked_ends_by_itself():
    done = fresh_process.ended(fresh_process.started(), "", 60.0)
    assert (done.returncode, done.stderr) == (0, "") and 0.1 < float(done.stdout) < 120


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("print('2.81'); import os; os._exit(9)", "no answer"),
        ("print('2.81'); raise MemoryError('too little')", "MemoryError: too little"),
        ("""print('{"error": "a sentence"}')""", "a sentence"),
    ],
)
def test_one_that_dies_after_it_was_ready_has_a_reason(script, reason):
    assert fresh_process.answer_of(asked(script), {})["error"] == reason
