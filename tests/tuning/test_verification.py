"""The final verdict is about the checkpoint that was tuned."""

from __future__ import annotations

import json

import pico
import pytest
from modelspeed.core.errors import MeasureError
from modelspeed.core.records import Target
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
