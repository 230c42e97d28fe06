"""`init` writes a recipe that the checkpoint can be used with as it is."""

from __future__ import annotations

from pathlib import Path

import pico
import pytest
import torch
import vision
from modelspeed.cli.main import app
from modelspeed.configs.load import load_recipe
from typer.testing import CliRunner


def init(path, out):
    result = CliRunner().invoke(app, ["init", str(path), "--out", str(out), "--force"])
    return result.exit_code, result.stderr, load_recipe(out) if out.exists() else None


def test_hyper_parameters_of_lightning_become_arguments(tmp_path):
    settings = {"width": 8, "Learning rate": 1e-3, "name": 'a "b": c', "none": None, "on": True}
    held = {"pytorch-lightning_version": "2", "hyper_parameters": settings,
            "state_dict": pico.net(["residual"]).state_dict()}  # fmt: skip
    torch.save(held, tmp_path / "a.ckpt")
    code, said, recipe = init(tmp_path / "a.ckpt", tmp_path / "r.yaml")
    assert code == 0 and "a Lightning checkpoint" in said
    assert recipe.model.factory == "model.py:build"
    assert recipe.model.args == {k: v for k, v in settings.items() if v is not None}
    assert "[1, 1, 224, 224]" in (tmp_path / "r.yaml").read_text()


def test_a_named_arch_gives_the_librarys_model_and_its_inputs(tmp_path, monkeypatch):
    vision.install(monkeypatch, "timm")
    held = {"arch": "resnet18", "state_dict": vision.build("", num_classes=5).state_dict()}
    torch.save(held, tmp_path / "a.pt")
    code, _, recipe = init(tmp_path / "a.pt", tmp_path / "r.yaml")
    assert code == 0 and recipe.model.factory == "timm:resnet18"
    assert recipe.model.args == {"num_classes": 5} and recipe.inputs[0].shape == (1, 3, 160, 160)


def test_a_pickled_module_needs_trust(tmp_path):
    torch.save(torch.nn.Linear(2, 2), tmp_path / "a.pt")
    code, said, recipe = init(tmp_path / "a.pt", tmp_path / "r.yaml")
    assert code == 1 and "--trust-pickle" in said and recipe is None


@pytest.mark.parametrize("batch", [2])
def test_an_exported_program_says_what_it_takes(tmp_path, batch):
    program = torch.export.export(pico.net(["residual"]), (pico.images(batch),))
    torch.export.save(program, tmp_path / "a.pt2")
    code, _, recipe = init(tmp_path / "a.pt2", tmp_path / "r.yaml")
    assert code == 0 and recipe.model is None and recipe.inputs[0].shape == (batch, 1, 12, 12)


def test_a_recipe_that_is_there_stays_where_the_disk_refuses(tmp_path, monkeypatch):
    torch.save(pico.net(["residual"]).state_dict(), tmp_path / "a.pt")
    (tmp_path / "r.yaml").write_text("version: 1\n")
    write = Path.write_bytes

    def fail(path, data):
        write(path, data[:9])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", fail)
    code, said, _ = init(tmp_path / "a.pt", tmp_path / "r.yaml")
    assert code != 0 and "the disk is full" in said
    assert (tmp_path / "r.yaml").read_text() == "version: 1\n"
    assert len(list(tmp_path.iterdir())) == 2
