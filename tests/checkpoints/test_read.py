from __future__ import annotations

import json
import os
import pickle
import zipfile
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from modelspeed.checkpoints.read import read
from modelspeed.core.errors import CheckpointError, UnsafePickle
from safetensors.torch import save_file
from torch import nn

torch.set_num_threads(1)


class Pico(nn.Module):
    def __init__(self, width: int = 4) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(3, width), nn.Linear(width, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(torch.relu(self.first(x)))


class Runs:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (f"touch {self.trace}",)


def program_file(folder: Path) -> Path:
    batch = torch.export.Dim("batch", min=1, max=64)
    model, x = Pico().eval(), torch.randn(2, 3)
    torch.export.save(
        torch.export.export(model, (x,), dynamic_shapes=({0: batch},)), folder / "m.pt2"
    )
    return folder / "m.pt2"


def rewritten(path: Path, change) -> Path:  # type: ignore[no-untyped-def]
    """The same archive with `change(name, content)` in place of each content."""
    new = path.with_name("changed.pt2")
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(new, "w") as out:
        for name in old.namelist():
            out.writestr(name, change(name, old.read(name)))
    return new


@pytest.mark.parametrize("name", ["a.pt", "a.pth", "a.bin", "a.safetensors", "wrong.pt"])
def test_state_dicts_are_read_by_content_into_an_eval_module(tmp_path, name):
    path, model = tmp_path / name, Pico()
    (save_file if "safe" in name or "wrong" in name else torch.save)(model.state_dict(), path)
    source = read(path, factory=Pico)
    assert not source.module.training and source.program is None and len(source.sha256) == 64
    assert source.kind == ("safetensors" if "safe" in name or "wrong" in name else "state_dict")
    assert torch.equal(source.module.first.weight, model.first.weight)


@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "module._orig_mod."])
@pytest.mark.parametrize("wrap", [(), ("state_dict",), ("model",), ("model", "model_state_dict")])
def test_wrappings_and_prefixes_are_taken_off(tmp_path, prefix, wrap):
    model = Pico()
    held: object = {prefix + k: v for k, v in model.state_dict().items()}
    for key in wrap:
        held = {key: held, "epoch": 3}
    torch.save(held, tmp_path / "a.pt")
    read_back = read(tmp_path / "a.pt", factory=Pico).module
    assert torch.equal(read_back.last.bias, model.last.bias)


def test_a_prefix_that_is_the_models_own_name_stays(tmp_path):
    model = nn.Sequential(OrderedDict(module=nn.Linear(2, 2)))
    torch.save(model.state_dict(), tmp_path / "a.pt")
    read(tmp_path / "a.pt", factory=lambda: nn.Sequential(OrderedDict(module=nn.Linear(2, 2))))


def test_the_second_name_of_a_tied_weight_may_be_missing(tmp_path):
    def tied() -> nn.Module:
        model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
        model[1].weight = model[0].weight
        return model

    weights = tied().state_dict()
    del weights["1.weight"]
    torch.save(weights, tmp_path / "a.pt")
    read(tmp_path / "a.pt", factory=tied)


def test_an_exported_program_is_read_with_its_dynamic_batch(tmp_path):
    source = read(program_file(tmp_path))
    assert source.kind == "pt2" and source.program is not None
    assert source.module(torch.randn(5, 3)).shape == (5, 2)


def refused(path: Path, *words: str, error: type = CheckpointError, **kwargs: object) -> None:
    with pytest.raises(error) as caught:
        read(path, **kwargs)  # type: ignore[arg-type]
    text = str(caught.value)
    assert "\n" not in text and all(w in text for w in words), text


def unfit(path: Path, *words: str, **kwargs: object) -> None:
    """One sentence, then a table of the differences."""
    with pytest.raises(CheckpointError) as caught:
        read(path, **kwargs)  # type: ignore[arg-type]
    first, head, *rows = str(caught.value).splitlines()
    assert first.endswith(".") and head.split()[0] == "tensor" and rows
    assert all(w in str(caught.value) for w in words), str(caught.value)


def test_what_is_no_checkpoint_is_refused_in_one_sentence(tmp_path):
    refused(tmp_path / "none.pt", "does not exist")
    refused(tmp_path, "is a folder")
    for name, content, words in [
        ("empty.pt", b"", "is empty"),
        ("a.pt", b"\x89PNG\r\n\x1a\n" + b"0" * 90, "not a checkpoint"),
        ("a.safetensors", b"\x89PNG\r\n\x1a\n" + b"0" * 90, "not a checkpoint"),
        ("text.pt", b"hello, world, this is text", "not a checkpoint"),
        ("cut.pt", b"PK\x03\x04" + b"0" * 50, "truncated"),
        ("legacy.pt", b"\x80\x02}q\x00X\x05", "truncated"),
    ]:
        (tmp_path / name).write_bytes(content)
        refused(tmp_path / name, words, factory=Pico)


@pytest.mark.parametrize("name", ["a.pt", "a.safetensors", "m.pt2"])
def test_a_file_cut_in_half_is_called_truncated(tmp_path, name):
    path = program_file(tmp_path) if name == "m.pt2" else tmp_path / name
    if name != "m.pt2":
        (save_file if "safe" in name else torch.save)(Pico().state_dict(), path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    refused(path, "truncated", factory=Pico)


def test_a_zip_that_is_none_of_ours_or_inflates_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.pt", "w") as out:
        out.writestr("readme.txt", "x")
    refused(tmp_path / "a.pt", "no PyTorch checkpoint")
    with zipfile.ZipFile(tmp_path / "bomb.pt", "w", zipfile.ZIP_DEFLATED) as out:
        out.writestr("a/data.pkl", bytes(8 << 20))
    refused(tmp_path / "bomb.pt", "inflate")


def test_torchscript_is_named(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.pt", "w") as out:
        for name in ("a/data.pkl", "a/constants.pkl", "a/code/__torch__.py"):
            out.writestr(name, "x")
    refused(tmp_path / "a.pt", "TorchScript")


def test_weights_alone_name_the_flag_and_the_recipe_key(tmp_path):
    torch.save(Pico().state_dict(), tmp_path / "a.pt")
    refused(tmp_path / "a.pt", "holds only weights", "--model FILE.py:factory", "model.factory")


@pytest.mark.parametrize("held", [{}, {"epoch": 1}, [1, 2]])
def test_a_file_without_tensors_is_refused_before_a_factory_is_asked_for(tmp_path, held):
    torch.save(held, tmp_path / "a.pt")
    refused(tmp_path / "a.pt", "holds")


def test_keys_and_shapes_that_do_not_fit_are_counted_and_explained(tmp_path):
    torch.save(Pico().state_dict(), tmp_path / "a.pt")
    unfit(tmp_path / "a.pt", "3 of another shape", "4x3", "8x3", "another width", "0.5 times",
          factory=Pico, args={"width": 8})  # fmt: skip
    other = {f"x{k}": v for k, v in Pico().state_dict().items()}
    torch.save(other, tmp_path / "b.pt")
    unfit(tmp_path / "b.pt", "4 missing", "4 unexpected", "`xfirst.weight` for `first.weight`",
          "renamed", factory=Pico)  # fmt: skip


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_nan_and_inf_name_the_first_tensor_and_count(tmp_path, value):
    model = Pico()
    with torch.no_grad():
        model.last.bias[0] = value
    torch.save(model.state_dict(), tmp_path / "a.pt")
    refused(tmp_path / "a.pt", "1 tensor,", "`last.bias` (1 of 2 values)", factory=Pico)


def test_a_factory_must_return_a_module(tmp_path):
    torch.save(Pico().state_dict(), tmp_path / "a.pt")
    refused(tmp_path / "a.pt", "returned int", factory=lambda: 3)


@pytest.mark.parametrize("legacy", [False, True])
def test_a_pickled_module_lists_what_it_would_run_and_needs_trust(tmp_path, legacy):
    path = tmp_path / "a.pt"
    torch.save(nn.Linear(2, 2), path, _use_new_zipfile_serialization=not legacy)
    refused(path, "torch.nn.modules.linear.Linear", "--trust-pickle", error=UnsafePickle)
    source = read(path, trust_pickle=True)
    assert source.kind == "pickle" and not source.module.training


@pytest.mark.parametrize("legacy", [False, True])
def test_a_hostile_pickle_never_runs(tmp_path, legacy):
    trace, path = tmp_path / "ran", tmp_path / "a.pt"
    held = {"w": torch.ones(2), "x": Runs(trace)}
    torch.save(held, path, _use_new_zipfile_serialization=not legacy)
    refused(path, "system", error=UnsafePickle, factory=Pico)
    assert not trace.exists()


def test_a_hostile_pickled_weight_in_a_program_never_runs(tmp_path):
    """`torch.export.load` alone would run it: it unpickles such weights without an allow-list."""
    trace, content = tmp_path / "ran", tmp_path / "weight"
    for legacy in (False, True):
        torch.save(Runs(trace), content, _use_new_zipfile_serialization=not legacy)
        evil = content.read_bytes()

        def change(name: str, old: bytes, evil: bytes = evil) -> bytes:
            if name.endswith("weights_config.json"):
                return old.replace(b'"use_pickle": false', b'"use_pickle": true')
            return evil if "weights/weight_" in name else old

        bad = rewritten(program_file(tmp_path), change)
        refused(bad, "system", error=UnsafePickle)
        assert not trace.exists()
    with pytest.raises(CheckpointError):
        read(bad, trust_pickle=True)
    assert trace.exists()  # the attack is a real one: trusted, it runs


@pytest.mark.parametrize(
    "text",
    ["__import__('os').system('x')", "s0.__class__", "open('x')", "9**9**9**9",
     "Pow(9,Pow(9,Pow(9,9)))", "1" * 40 + "x", "(" * 9000, "Float('1', precision=999999999)"],
)  # fmt: skip
def test_an_expression_of_a_program_that_is_more_than_arithmetic_is_refused(tmp_path, text):
    def change(name: str, old: bytes) -> bytes:
        if not name.endswith("models/model.json"):
            return old
        held = json.loads(old)
        sizes = held["graph_module"]["graph"]["sym_int_values"]
        sizes["size"] = {"as_expr": {"expr_str": text}}
        return json.dumps(held).encode()

    bad = rewritten(program_file(tmp_path), change)
    refused(bad, "expression", error=UnsafePickle)


def test_compiled_code_and_opaque_objects_in_a_program_are_refused(tmp_path):
    for name in ("data/aotinductor/m/a.so", "data/constants/opaque_obj_0"):
        path = program_file(tmp_path)
        with zipfile.ZipFile(path, "a") as out:
            out.writestr(f"m/{name}", pickle.dumps(1))
        refused(path, name, error=UnsafePickle)
