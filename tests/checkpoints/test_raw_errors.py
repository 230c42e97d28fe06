"""What Python says about data that is not as expected reaches nobody as it is."""

from __future__ import annotations

import json

import pytest
import torch
from modelspeed.checkpoints.folders import config_inputs, load_pretrained
from modelspeed.core.errors import ArtifactError, CheckpointError, first_line
from modelspeed.core.model_io import Inputs
from modelspeed.tuning import check as checking
from torch import nn


def test_a_raw_error_is_said_to_be_about_what_a_file_holds():
    for error in (IndexError("list index out of range"), KeyError("x"), TypeError("no len()")):
        said = first_line(error)
        assert said.startswith("what it holds is not as it must be (") and said.endswith(").")
    assert first_line(ValueError("two\nlines")) == "two."
    assert first_line(OSError()) == "OSError."


@pytest.mark.parametrize("listed", [3, {"a": 1}, "Bert", [3], [["x"]]])
def test_architectures_that_are_not_names_are_told(tmp_path, listed):
    config = {"model_type": "bert", "architectures": listed}
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "model.safetensors").write_bytes(b"")
    pytest.importorskip("transformers")
    with pytest.raises(CheckpointError, match=r"[`']architectures[`']"):
        load_pretrained(tmp_path)


@pytest.mark.parametrize("value", ["x", 1.5, True, {"a": 1}])
@pytest.mark.parametrize("key", ["image_size", "num_channels", "vocab_size", "num_frames"])
def test_sizes_that_are_not_numbers_say_nothing_about_inputs(tmp_path, key, value):
    config = {"image_size": 8, "num_channels": 3, "vocab_size": 9, key: value}
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert config_inputs(tmp_path) == []


def test_a_program_that_does_not_run_is_a_sentence(tmp_path):
    with pytest.raises(ArtifactError, match=r"does not run on inputs \[\[1, 3\]\]"):
        checking._check_runs(tmp_path, nn.Linear(4, 2), Inputs.of(torch.ones(1, 3)))
