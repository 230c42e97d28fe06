"""Models by their name in a library, folders of transformers, files that name their `arch`."""

from __future__ import annotations

import sys
from argparse import Namespace
from pathlib import Path

import pytest
import torch
import vision
from modelspeed.checkpoints.inspect import inspect_checkpoint
from modelspeed.checkpoints.libraries import model_factory
from modelspeed.checkpoints.read import read
from modelspeed.core.errors import CheckpointError, MissingExtra, UsageError

HERE = Path(".")


@pytest.fixture(autouse=True)
def libraries(monkeypatch):
    vision.install(monkeypatch, "torchvision", "timm")


@pytest.mark.parametrize("spec", ["torchvision:resnet18", "timm:resnet18.a1_in1k"])
def test_a_librarys_model_is_built_without_weights(spec):
    model = model_factory(spec, HERE)(num_classes=4).eval()
    with torch.no_grad():
        assert model(torch.ones(1, 3, 64, 64)).shape == (1, 4)


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("torchvision:resnet81", "near ones are .*`resnet"),
        ("timm:resnet188", "near ones are .*`resnet18"),
        ("timm:hf-hub:someone/model", "no model of that name"),
        ("timm:zzzzzz", "nor one like it"),
        ("transformers:nowhere", r"no `nowhere/config\.json`"),
    ],
)
def test_a_name_that_is_not_there_gets_near_ones(spec, words):
    with pytest.raises(UsageError, match=words):
        model_factory(spec, HERE)


def test_arguments_that_the_library_refuses_are_named():
    with pytest.raises(UsageError, match="can't be built with wide=3"):
        model_factory("torchvision:resnet18", HERE)(wide=3)


def test_a_library_that_is_not_installed_is_named_with_its_extra(monkeypatch):
    vision.install(monkeypatch, "torchvision")
    with pytest.raises(MissingExtra, match=r"needs the package `timm`.*modelspeed\[timm\]"):
        model_factory("timm:resnet18", HERE)


def test_a_library_made_for_another_torch_is_no_traceback(monkeypatch, tmp_path):
    (tmp_path / "torchvision.py").write_text("raise RuntimeError('operator x does not exist')")
    monkeypatch.delitem(sys.modules, "torchvision")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(MissingExtra, match=r"does not load \(operator x .*made for torch 2"):
        model_factory("torchvision:resnet18", HERE)


@pytest.mark.parametrize("library", ["timm", "torchvision"])
@pytest.mark.parametrize("key", ["arch", "args", "space"])
def test_a_file_that_names_its_arch_needs_no_model(tmp_path, monkeypatch, key, library):
    vision.install(monkeypatch, library)
    model = vision.build("resnet18", num_classes=5)
    said = {"arch": "resnet18", "args": {"model": "resnet18"}, "space": Namespace(arch="resnet18")}
    held = {"args" if key == "space" else key: said[key], "epoch": 3}
    torch.save(held | {"state_dict": model.state_dict()}, tmp_path / "a.pth.tar")
    source = read(tmp_path / "a.pth.tar")
    assert torch.equal(source.module[3].weight, model[3].weight)
    found = inspect_checkpoint(tmp_path / "a.pth.tar")
    side = {"timm": 160, "torchvision": 224}[library]
    assert found.factory == f"{library}:resnet18" and found.args == {"num_classes": 5}
    assert found.inputs == ({"shape": [1, 3, side, side], "dtype": "float32"},)


def test_an_arch_that_no_library_has_is_named(tmp_path):
    torch.save({"arch": "my_net", "state_dict": {"w": torch.ones(2, 2)}, "args": Namespace()},
               tmp_path / "a.pt")  # fmt: skip
    with pytest.raises(CheckpointError, match="says that it is a `my_net`, which no installed"):
        read(tmp_path / "a.pt")


def test_no_weights_are_fetched_for_a_backbone_either():
    assert len(model_factory("torchvision:fcn", HERE)(num_classes=3)) == 4


@pytest.mark.parametrize("library", ["timm", "torchvision"])
@pytest.mark.parametrize(
    "name", ["weights", "weights_backbone", "pretrained", "pretrained_cfg", "checkpoint_path"]
)
def test_arguments_that_fetch_or_unpickle_weights_are_refused(library, name):
    with pytest.raises(UsageError, match=f"`model.args` gives `{name}`"):
        model_factory(f"{library}:resnet18", HERE)(**{name: "x"})


def test_of_two_libraries_the_one_with_the_files_names_is_taken(tmp_path, monkeypatch):
    def other(name, pretrained=False, **args):
        return torch.nn.ModuleDict({"stem": vision.build(name, **args)})

    monkeypatch.setattr(sys.modules["timm"], "create_model", other)
    for library, model in (
        ("torchvision", vision.build("", 5)),
        ("timm", other("", num_classes=5)),
    ):
        torch.save({"arch": "resnet18", "state_dict": model.state_dict()}, tmp_path / "a.pt")
        assert inspect_checkpoint(tmp_path / "a.pt").factory == f"{library}:resnet18"
        assert read(tmp_path / "a.pt").module.state_dict().keys() == model.state_dict().keys()
