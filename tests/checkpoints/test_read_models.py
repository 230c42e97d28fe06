"""Whatever the file holds: a module, or one sentence."""

from __future__ import annotations

import zipfile

import pico
import pytest
import torch
from modelspeed.checkpoints.read import read
from modelspeed.core.errors import CheckpointError, UnsafePickle
from safetensors.torch import save_file


@pytest.fixture
def model():
    return pico.net(["residual"])


def build():
    return pico.Net(["residual"])


@pytest.mark.parametrize("wrap", [lambda s: s, lambda s: {"state_dict": s},
                                  lambda s: {f"module.{k}": v for k, v in s.items()}])  # fmt: skip
def test_state_dicts_are_read_with_their_usual_wrappings(tmp_path, model, wrap):
    torch.save(wrap(model.state_dict()), tmp_path / "m.pt")
    source = read(tmp_path / "m.pt", factory=build)
    assert source.kind == "state_dict" and not source.module.training
    assert torch.equal(source.module(pico.images()), model(pico.images()))


def test_safetensors_and_pt2_are_read(tmp_path, model):
    save_file(model.state_dict(), tmp_path / "m.safetensors")
    source = read(tmp_path / "m.safetensors", factory=build)
    assert torch.equal(source.module(pico.images()), model(pico.images()))
    torch.export.save(torch.export.export(model, (pico.images(),)), tmp_path / "m.pt2")
    again = read(tmp_path / "m.pt2")
    assert again.kind == "pt2" and again.program is not None
    assert torch.equal(again.module(pico.images()), model(pico.images()))


def test_a_pickled_module_needs_trust_and_says_what_it_would_run(tmp_path):
    torch.save(torch.nn.Linear(2, 2), tmp_path / "m.pt")
    with pytest.raises(UnsafePickle, match=r"torch\.nn\.modules\.linear\.Linear.*--trust-pickle"):
        read(tmp_path / "m.pt")
    assert read(tmp_path / "m.pt", trust_pickle=True).kind == "pickle"


def corrupt(tmp_path, model):
    torch.save(model.state_dict(), tmp_path / "good.pt")
    save_file(model.state_dict(), tmp_path / "good.safetensors")
    files = {
        "truncated.pt": (tmp_path / "good.pt").read_bytes()[:-2000],
        "truncated.safetensors": (tmp_path / "good.safetensors").read_bytes()[:-50],
        "empty.pt": b"",
        "text.pt": b"hello, I am no checkpoint",
        "image.pt": b"\x89PNG\r\n\x1a\n" + bytes(100),
    }
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    return files


def test_damaged_and_wrong_files_give_one_sentence(tmp_path, model):
    for name in [*corrupt(tmp_path, model), "missing.pt"]:
        with pytest.raises(CheckpointError) as caught:
            read(tmp_path / name, factory=build)
        assert name in str(caught.value) and "\n" not in str(caught.value)
    with pytest.raises(CheckpointError, match="folder"):
        read(tmp_path)


def test_a_zip_of_something_else_and_a_bomb_are_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "other.pt", "w") as archive:
        archive.writestr("readme.txt", "hi")
    with pytest.raises(CheckpointError, match="no PyTorch checkpoint"):
        read(tmp_path / "other.pt")
    with zipfile.ZipFile(tmp_path / "bomb.pt", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/data.pkl", bytes(50_000_000))
    with pytest.raises(CheckpointError, match="inflate"):
        read(tmp_path / "bomb.pt")


def test_weights_without_a_factory_and_with_a_wrong_one(tmp_path, model):
    torch.save(model.state_dict(), tmp_path / "m.pt")
    with pytest.raises(CheckpointError, match=r"--model FILE\.py:factory"):
        read(tmp_path / "m.pt")
    with pytest.raises(CheckpointError, match=r"does not fit.*missing.*unexpected"):
        read(tmp_path / "m.pt", factory=lambda: pico.Net(["grouped"]))
    with pytest.raises(CheckpointError, match="another shape"):
        read(tmp_path / "m.pt", factory=lambda: pico.Net(["residual"], width=4))


def test_nan_in_the_weights_is_named(tmp_path, model):
    model.stem.weight.data[0] = float("nan")
    torch.save(model.state_dict(), tmp_path / "m.pt")
    with pytest.raises(CheckpointError, match=r"NaN.*`stem\.weight`"):
        read(tmp_path / "m.pt", factory=build)
