"""Wrappings of training programs: the weights come out, and nothing that lay around them runs."""

from __future__ import annotations

import argparse
import json
import sys
import types
from collections import OrderedDict, defaultdict

import numpy as np
import pico
import pytest
import torch
from modelspeed.checkpoints.contents import contents
from modelspeed.checkpoints.read import read
from modelspeed.core.errors import CheckpointError, UnsafePickle
from safetensors.torch import load_file, save_file
from torch import nn


def build():
    return pico.Net(["residual"])


@pytest.fixture
def weights():
    return pico.net(["residual"]).state_dict()


def stored(tmp_path, held, name="m.ckpt"):
    torch.save(held, tmp_path / name)
    return tmp_path / name


def fits(path, weights):
    source = read(path, factory=build)
    assert all(torch.equal(v, weights[k]) for k, v in source.module.state_dict().items())
    return source.notes


def lightning(weights, settings):
    """What `Trainer.save_checkpoint` writes."""
    named = {f"model.{k}": v for k, v in weights.items()} | {"loss.weight": torch.ones(3)}
    return {
        "epoch": 3, "global_step": 40, "pytorch-lightning_version": "2.4.0",
        "state_dict": named,
        "loops": {}, "callbacks": {"ModelCheckpoint{'monitor': 'x'}": {"best": torch.ones(())}},
        "optimizer_states": [{"state": {0: {"exp_avg": torch.ones(2)}}, "param_groups": []}],
        "lr_schedulers": [], "hparams_name": "kwargs", "hyper_parameters": settings,
    }  # fmt: skip


def test_lightning_gives_weights_and_plain_hyper_parameters_and_names_what_is_left_out(
    tmp_path, weights
):
    path = stored(tmp_path, lightning(weights, {"width": 8, "blocks": ["residual"], "f": len}))
    assert fits(stored(tmp_path, lightning(weights, {"width": 8})), weights) == (
        "1 tensor left out, of the loss: `loss.weight`",
    )
    about = contents(path).about
    assert about.lightning and about.hyper_parameters == {"width": 8}


def test_settings_of_classes_that_are_not_here_are_read_as_stand_ins(tmp_path, weights):
    name = "pytorch_lightning.utilities.parsing"
    module = types.ModuleType(name)
    module.AttributeDict = type("AttributeDict", (dict,), {"__module__": name})
    spaces = defaultdict(dict, a=argparse.Namespace(lr=1.0))
    held = lightning(weights, module.AttributeDict(width=8)) | {"args": spaces, "at": tmp_path}
    with pytest.MonkeyPatch.context() as patch:
        for part in (name, name.rpartition(".")[0], name.partition(".")[0]):
            patch.setitem(sys.modules, part, module)
        path = stored(tmp_path, held)
    fits(path, weights)
    assert contents(path).about.hyper_parameters == {"width": 8} and name not in sys.modules


def test_a_class_that_only_looks_harmless_is_not_let_through(tmp_path, weights):
    class Fake:
        def __reduce__(self):
            return eval, ("1 + 1",)

    path = stored(tmp_path, lightning(weights, {"width": Fake()}))
    with pytest.raises(UnsafePickle, match="eval"):
        read(path, factory=build)


@pytest.mark.parametrize("key", ["ema", "model_ema", "state_dict_ema", "params_ema"])
def test_averaged_weights_are_preferred_and_that_is_said(tmp_path, weights, key):
    other = {f"module.{k}": torch.zeros_like(v) for k, v in weights.items()}
    averaged = {"n_averaged": torch.tensor(5)} | {f"module.{k}": v for k, v in weights.items()}
    notes = fits(stored(tmp_path, {"model": other, key: averaged, "epoch": 1}), weights)
    assert len(notes) == 1 and f"`{key}`" in notes[0] and "`model`" in notes[0]


def test_averaged_weights_of_something_else_are_not(tmp_path, weights):
    held = {"model": weights, "ema": {"decay": torch.tensor(0.9)}, "loss": torch.tensor(1.0)}
    assert fits(stored(tmp_path, held), weights) == ()


@pytest.mark.parametrize(
    ("rename", "said"),
    [
        (lambda k: f"model.{k}", False),
        (lambda k: k.replace(".", "._orig_mod.", 1), False),
        (lambda k: f"_fsdp_wrapped_module.{k}", False),
        (lambda k: f"backbone.net.{k}", True),
    ],
)
def test_prefixes_of_wrappers_come_off(tmp_path, weights, rename, said):
    renamed = OrderedDict((rename(k), v) for k, v in weights.items())
    notes = fits(stored(tmp_path, renamed), weights)
    assert ("`backbone.net.`" in " ".join(notes)) is said


def test_a_model_that_wraps_what_the_file_holds_is_filled(tmp_path, weights):
    def wrapped():
        return torch.nn.Sequential(OrderedDict(inner=build()))

    module = read(stored(tmp_path, weights), factory=wrapped).module
    assert torch.equal(module.inner.head.weight, weights["head.weight"])


def test_two_models_that_fit_and_several_state_dicts_are_no_guess(tmp_path, weights):
    both = {f"{p}.{k}": v for p in ("student", "teacher") for k, v in weights.items()}
    with pytest.raises(CheckpointError, match=r"several models.*`student\.`, `teacher\.`"):
        read(stored(tmp_path, both), factory=build)
    with pytest.raises(CheckpointError, match="several state dicts: `g`, `d`"):
        read(stored(tmp_path, {"g": weights, "d": weights}), factory=build)


def sharded(folder, weights):
    names = {n: f"model-0000{1 + i % 2}-of-00002.safetensors" for i, n in enumerate(weights)}
    for file in set(names.values()):
        save_file({n: weights[n].clone() for n in weights if names[n] == file}, folder / file)
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": names}))
    return index


def test_an_index_of_shards_is_read_and_its_digest_covers_the_shards(tmp_path, weights):
    index = sharded(tmp_path, weights)
    fits(index, weights)
    before = contents(index).sha256
    first = next(tmp_path.glob("*-00001-*"))
    save_file({k: v + 1 for k, v in load_file(first).items()}, first)
    assert contents(index).sha256 != before
    assert read(tmp_path, factory=build).kind == "safetensors"  # the folder that holds it


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda i: i["weight_map"].update(x="../a.safetensors"), "not a file beside it"),
        (lambda i: i["weight_map"].update(x="/etc/passwd"), "not a file beside it"),
        (lambda i: i["weight_map"].update(x="gone.safetensors"), "not there"),
        (lambda i: i["weight_map"].update(x="model-00001-of-00002.safetensors"), "`x` is in"),
        (lambda i: i.update(weight_map={}), "no `weight_map`"),
        (lambda i: i.update(weight_map=[1]), "index"),
        (lambda i: i.pop("weight_map"), "not an index"),
    ],
)
def test_an_index_that_lies_is_refused(tmp_path, weights, change, words):
    index = sharded(tmp_path, weights)
    held = json.loads(index.read_text())
    change(held)
    index.write_text(json.dumps(held))
    with pytest.raises(CheckpointError, match=words) as caught:
        read(index, factory=build)
    assert "\n" not in str(caught.value)


def test_a_folder_without_a_checkpoint_says_what_it_lacks(tmp_path):
    with pytest.raises(CheckpointError, match=r"folder without `config\.json`"):
        read(tmp_path)


def test_numbers_and_arrays_of_numpy_beside_the_weights_are_passed_over(tmp_path, weights):
    around = {"best": np.float64(0.7), "loss": np.float32(1), "rng": np.random.get_state(),
              "dtype": np.dtype("f4"), "kind": np.int64, "seen": np.arange(3)}  # fmt: skip
    for legacy in (False, True):
        torch.save({"state_dict": weights, **around}, tmp_path / "m.pt",
                   _use_new_zipfile_serialization=not legacy)  # fmt: skip
        assert fits(tmp_path / "m.pt", weights) == ()
    assert "numpy.ndarray" not in str(contents(tmp_path / "m.pt").about.facts["seen"])
    torch.save({"w": np.ones(3)}, tmp_path / "m.pt")
    with pytest.raises(CheckpointError, match="holds no tensors"):
        read(tmp_path / "m.pt", factory=build)


def test_class_weights_among_hyper_parameters_are_no_model(tmp_path, weights):
    held = lightning(weights, {"width": 8, "class_weights": torch.ones(3)})
    about = contents(stored(tmp_path, held)).about
    assert about.hyper_parameters == {"width": 8} and "hyper_parameters" in about.facts


def test_what_holds_itself_is_no_endless_search(tmp_path, weights):
    held = {}
    held["model"] = held
    with pytest.raises(CheckpointError, match="holds no tensors"):
        read(stored(tmp_path, held), factory=build)
    again = [1]
    again.append(again)
    about = contents(stored(tmp_path, lightning(weights, {"width": 8, "x": again}))).about
    assert about.hyper_parameters == {"width": 8}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda v: v.to_sparse(), "`w` is sparse"),
        (lambda v: torch.quantize_per_tensor(v, 0.1, 0, torch.qint8), "`w` is quantized"),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_tensors_that_are_not_dense_numbers_are_named(tmp_path, change, words):
    path = stored(tmp_path, {"w": change(torch.ones(2, 2))})
    with pytest.raises(CheckpointError, match=words):
        read(path, factory=lambda: nn.Linear(2, 2))


def test_a_model_with_lazy_layers_is_told_to_be_called_first(tmp_path):
    path = stored(tmp_path, nn.Sequential(nn.Linear(3, 2)).state_dict())
    with pytest.raises(CheckpointError, match=r"lazy layer: `0\.weight` has no size yet"):
        read(path, factory=lambda: nn.Sequential(nn.LazyLinear(2)))


def test_extra_state_that_is_no_tensor_is_left_out_and_said(tmp_path):
    class Extra(nn.Linear):
        def get_extra_state(self):
            return {"a": 1}

        def set_extra_state(self, state):
            pass

    path = stored(tmp_path, Extra(3, 2).state_dict())
    source = read(path, factory=lambda: Extra(3, 2))
    assert source.notes == ("no tensors, so not read: `_extra_state`",)
