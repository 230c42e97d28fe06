"""A folder's files lie in it, and what its configuration asks for is what its weights hold."""

from __future__ import annotations

import json
import os

import pytest
import torch
from modelspeed.checkpoints.libraries import model_factory
from modelspeed.checkpoints.places import check_inside
from modelspeed.checkpoints.read import read
from modelspeed.core.errors import CheckpointError, UnsafePickle
from safetensors.torch import save_file
from torch import nn

SHARD = "model-1.safetensors"
INDEX = "model.safetensors.index.json"


@pytest.fixture
def shards(tmp_path):
    """An index and its one shard; another file of weights lies outside of their folder."""
    folder = tmp_path / "model"
    folder.mkdir()
    weights = nn.Linear(3, 2).state_dict()
    save_file(weights, folder / SHARD)
    save_file(weights, tmp_path / "secret.safetensors")
    (folder / INDEX).write_text(json.dumps({"weight_map": dict.fromkeys(weights, SHARD)}))
    return folder


@pytest.fixture
def bert(tmp_path):
    from transformers import BertConfig, BertForSequenceClassification

    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
             "intermediate_size": 24, "vocab_size": 50, "max_position_embeddings": 40}  # fmt: skip
    BertForSequenceClassification(BertConfig(**sizes)).save_pretrained(tmp_path / "bert")
    return tmp_path / "bert"


def refused(path, words, error=CheckpointError):
    with pytest.raises(error, match=words) as caught:
        read(path)
    assert "\n" not in str(caught.value)


def settings(folder, **changes):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_a_shard_that_is_a_link_out_of_the_folder_is_not_followed(shards, tmp_path):
    for target in (tmp_path / "secret.safetensors", "/etc/passwd", "../secret.safetensors"):
        (shards / SHARD).unlink()
        (shards / SHARD).symlink_to(target)
        refused(shards / INDEX, "outside of its folder")
        refused(shards, "outside of its folder")


def test_a_link_within_the_folder_and_one_of_the_cache_of_hugging_face_are_followed(
    shards, tmp_path
):
    (shards / SHARD).rename(shards / "real.safetensors")
    (shards / SHARD).symlink_to("real.safetensors")
    assert read(shards / INDEX, factory=lambda: nn.Linear(3, 2)).kind == "safetensors"
    cached = tmp_path / "models--x" / "snapshots" / "abc"
    cached.mkdir(parents=True)
    (tmp_path / "models--x" / "blobs").mkdir()
    (shards / "real.safetensors").rename(tmp_path / "models--x" / "blobs" / "f00")
    (cached / SHARD).symlink_to("../../blobs/f00")
    (cached / INDEX).write_text((shards / INDEX).read_text())
    assert read(cached, factory=lambda: nn.Linear(3, 2)).kind == "safetensors"


def test_a_pipe_is_named_and_never_waited_for(shards):
    (shards / SHARD).unlink()
    os.mkfifo(shards / SHARD)
    refused(shards / INDEX, "is a pipe")
    (shards / INDEX).unlink()
    os.mkfifo(shards / "config.json")
    refused(shards, "is a pipe")


@pytest.mark.parametrize("target", ["/dev/zero", "/dev/null"])
def test_a_device_is_not_read(tmp_path, target):
    (tmp_path / "config.json").symlink_to(target)
    refused(tmp_path, "outside of its folder")
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(CheckpointError, match="leads nowhere"):
        check_inside(tmp_path / "loop")


@pytest.mark.parametrize("name", ["generation_config.json", "tokenizer.json"])
def test_every_file_of_a_transformers_folder_is_a_file_in_it(bert, name):
    (bert / name).unlink(missing_ok=True)
    os.mkfifo(bert / name)
    refused(bert, "is a pipe")


def test_an_index_of_a_transformers_folder_points_into_it(bert, tmp_path):
    (bert / "model.safetensors").rename(tmp_path / "model.safetensors")
    for file in ("../model.safetensors", str(tmp_path / "model.safetensors")):
        (bert / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": {"x": file}}))
        refused(bert, "not a file beside it")


@pytest.mark.parametrize("number", [10_000_000, 10**15, 99_999])
def test_a_configuration_builds_about_what_the_weights_hold(bert, number):
    settings(bert, num_hidden_layers=number)
    refused(bert, "at most 100,000 are built|far larger than its")
    with pytest.raises(CheckpointError, match=r"at most 100,000 are built|far larger than its"):
        model_factory(f"transformers:{bert}", bert)()


def test_a_configuration_is_not_wider_than_the_weights(bert):
    settings(bert, hidden_size=2**20, intermediate_size=2**24)
    refused(bert, "far larger than its")


def test_a_configuration_names_neither_other_files_nor_code(bert):
    settings(bert, transformers_weights="../../x.safetensors.index.json")
    refused(bert, "`transformers_weights` names other files")
    (bert / "adapter_config.json").write_text('{"base_model_name_or_path": "/etc"}')
    settings(bert, transformers_weights=None)
    refused(bert, "an adapter")
    (bert / "adapter_config.json").unlink()
    settings(bert, transformers_weights=None, _attn_implementation="someone/kernels")
    refused(bert, "names code elsewhere", UnsafePickle)
    within = {"text_config": {"parts": [{"attn_implementation": "someone/kernels"}]}}
    settings(bert, _attn_implementation=None, **within)
    refused(bert, "`attn_implementation` names code elsewhere", UnsafePickle)


def test_a_folder_that_is_as_it_should_be_is_read(bert):
    assert isinstance(read(bert).module, nn.Module)
    assert torch.is_tensor(next(read(bert).module.parameters()))
