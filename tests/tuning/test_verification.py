"""The final verdict is about the checkpoint that was tuned."""

from __future__ import annotations

import json
import sys

import pico
import pytest
from modelspeed.core.errors import MeasureError
from modelspeed.core.records import Target
from modelspeed.tuning import verification
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
        verify_here(
            VerificationRequest(job, str(tmp_path / "fast"), 1.0, 1.0, "version: 1", False, 0)
        )


def test_a_process_that_never_ends_is_stopped_with_a_sentence(monkeypatch):
    monkeypatch.setattr(verification, "LOOK", 0.2)
    words = (sys.executable, "-c", "import time; time.sleep(600)")
    with pytest.raises(MeasureError, match="had not ended after 1 s and was stopped"):
        verification._ended(words, "", 0.6)


def test_time_that_a_process_stands_still_for_others_is_not_its_own(monkeypatch):
    """The wall's clock goes on for several looks; that of work hardly does."""
    monkeypatch.setattr(verification, "LOOK", 0.05)
    seconds = iter(range(10**6))
    monkeypatch.setattr(verification, "working", lambda: 1e-3 * next(seconds))
    words = (sys.executable, "-c", "import sys, time; time.sleep(0.4); print(sys.stdin.read())")
    done = verification._ended(words, "hello", 0.3)
    assert done.stdout == "hello\n" and done.returncode == 0 and next(seconds) > 8
