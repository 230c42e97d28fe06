"""Folders of transformers: read with their shards, and no code of theirs runs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from modelspeed.checkpoints.folders import config_inputs
from modelspeed.checkpoints.inspect import inspect_checkpoint
from modelspeed.checkpoints.libraries import model_factory
from modelspeed.checkpoints.read import read
from modelspeed.core.errors import CheckpointError, UnsafePickle
from safetensors.torch import save_file

HERE = Path(".")


@pytest.fixture
def bert(tmp_path):
    from transformers import BertConfig, BertForSequenceClassification

    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
             "intermediate_size": 24, "vocab_size": 50, "max_position_embeddings": 40}  # fmt: skip
    config = BertConfig(num_labels=3, **sizes)
    model = BertForSequenceClassification(config).eval()
    model.save_pretrained(tmp_path / "bert", max_shard_size="8KB")
    return model, tmp_path / "bert"


def test_a_folder_of_transformers_is_read_with_its_shards(bert):
    model, folder = bert
    assert len(list(folder.glob("*.safetensors"))) > 1
    source = read(folder)
    ids = torch.arange(12).view(1, 12)
    with torch.no_grad():
        assert torch.equal(source.module(input_ids=ids).logits, model(input_ids=ids).logits)
    assert source.kind == "folder" and not source.module.training
    assert config_inputs(folder) == [
        {"shape": [1, 40], "dtype": "int64", "name": "input_ids", "range": [0, 49]}
    ]
    assert inspect_checkpoint(folder).factory is None and inspect_checkpoint(folder).inputs_sure


def test_its_config_alone_builds_the_class_for_weights_elsewhere(bert, tmp_path):
    model, folder = bert
    torch.save({"state_dict": model.state_dict()}, tmp_path / "a.pt")
    source = read(tmp_path / "a.pt", factory=model_factory(f"transformers:{folder}", HERE))
    assert torch.equal(source.module.classifier.weight, model.classifier.weight)


def test_a_folder_whose_weights_are_missing_or_of_another_model_is_refused(bert):
    _, folder = bert
    config = (folder / "config.json").read_text()
    (folder / "config.json").write_text(config.replace('"hidden_size": 16', '"hidden_size": 32'))
    with pytest.raises(CheckpointError) as caught:
        read(folder)
    assert "\n" not in str(caught.value)
    (folder / "config.json").write_text("{")
    with pytest.raises(CheckpointError, match="can't be read"):
        read(folder)


def test_a_folder_that_brings_its_own_code_is_not_run(tmp_path):
    (tmp_path / "config.json").write_text(
        '{"architectures": ["X"], "auto_map": {"AutoModel": "evil.X"}}'
    )
    (tmp_path / "evil.py").write_text("raise SystemExit('ran')")
    torch.save({}, tmp_path / "pytorch_model.bin")
    with pytest.raises(UnsafePickle, match="own code"):
        read(tmp_path)


def test_inputs_are_sure_only_where_the_model_calls_them_so(tmp_path):
    import transformers as t

    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
             "intermediate_size": 24, "image_size": 32, "patch_size": 16}  # fmt: skip
    made = {
        "vilt": t.ViltModel(t.ViltConfig(**sizes)),
        "video": t.VideoMAEModel(t.VideoMAEConfig(**sizes, num_frames=4)),
        "vit": t.ViTModel(t.ViTConfig(**sizes)),
    }
    found = {}
    for name, model in made.items():
        model.save_pretrained(tmp_path / name)
        found[name] = inspect_checkpoint(tmp_path / name)
    assert not found["vilt"].inputs_sure
    for name, shape in (("video", [1, 4, 3, 32, 32]), ("vit", [1, 3, 32, 32])):
        (spec,) = found[name].inputs
        assert found[name].inputs_sure and spec["shape"] == shape
        with torch.no_grad():
            read(tmp_path / name).module(**{spec["name"]: torch.ones(shape)})


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"num_hidden_layers": -1}, r"16 only in the weights \(`bert\..*number of layers: .*more"),
        ({"num_hidden_layers": 2}, r"16 at random.*number of layers: the weights have fewer"),
        ({"architectures": ["BertModel"]}, r"2 only in the weights \(`classifier\.bias`"),
        ({"architectures": None}, r"`architectures` in `config.json` is missing"),
        ({"architectures": ["Mine"]}, r"names `Mine`, which is not known here"),
        ({"architectures": ["BertForMaskedLM"]}, r"at random because.*another model's"),
        ({"hidden_size": 32}, r"of another shape \(`bert\..*gives other sizes"),
    ],
)
def test_weights_that_the_configured_model_lacks_or_does_not_take_are_an_error(
    bert, changes, words
):
    _, folder = bert
    config = json.loads((folder / "config.json").read_text()) | changes
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=words) as bad:
        read(folder)
    assert "\n" not in str(bad.value)


def test_of_a_folder_harmless_extras_and_what_is_asked_for_are_left_out_and_said(bert):
    _, folder = bert
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    more = {"criterion.weight": torch.ones(3), "bert.pooler.total_ops": torch.ones(1),
            "mine.weight": torch.ones(2)}  # fmt: skip
    save_file(more, folder / "more.safetensors", metadata={"format": "pt"})
    index["weight_map"] |= dict.fromkeys(more, "more.safetensors")
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(CheckpointError, match=r"1 only in the weights \(`mine.weight`\)"):
        read(folder)
    notes = " ".join(read(folder, ignore=["^mine"]).notes)
    assert "profiler" in notes and "of the loss" in notes and "leaves out 1 tensor" in notes


def test_a_tied_head_that_the_configured_class_has_not_is_said(tmp_path):
    from transformers import GPT2Config, GPT2LMHeadModel

    sizes = {"n_embd": 16, "n_layer": 1, "n_head": 2, "vocab_size": 20, "n_positions": 10}
    GPT2LMHeadModel(GPT2Config(**sizes)).save_pretrained(tmp_path)
    assert read(tmp_path).notes == ()
    config = json.loads((tmp_path / "config.json").read_text()) | {"architectures": ["GPT2Model"]}
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert "saved from a model with a head" in read(tmp_path).notes[0]
