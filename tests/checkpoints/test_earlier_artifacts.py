"""Artifacts that commit 7e497bd wrote, before the rooms were redrawn (tests/fixtures/write.py)."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import modelspeed
import numpy as np
import pytest
import torch
from modelspeed.cli.main import app
from quick import hasten
from safetensors import safe_open
from typer.testing import CliRunner

ARTIFACTS = Path(__file__).parents[1] / "fixtures" / "artifacts"
KINDS = ("float", "int8", "pruned")
# By kind, as a share of the outputs' size: a rounding step of int8 may fall the other way
# where another CPU adds up in another order.
TOLERANCE = {"float": 1e-4, "int8": 0.05, "pruned": 1e-4}

pytestmark = pytest.mark.filterwarnings("ignore::modelspeed.core.errors.MachineWarning")


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """The user stands in an empty folder, and measurements take no time."""
    hasten(monkeypatch.setattr)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MODELSPEED_CACHE", str(tmp_path / "cache"))


def run(*words):
    done = CliRunner().invoke(app, [str(w) for w in words])
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    assert done.exit_code == 0, done.stderr
    return done.stdout


def off(module, kind):
    """The largest difference from the stored outputs, as a share of their size."""
    stored = np.load(ARTIFACTS / "outputs.npz")
    wanted = torch.from_numpy(stored[kind])
    with torch.no_grad():
        rows = [module(image[None]) for image in torch.from_numpy(stored["inputs"])]
    return float((torch.cat(rows) - wanted).abs().max() / wanted.abs().max())


def network():
    """The class that the checkpoint was trained with, before any edit."""
    spec = importlib.util.spec_from_file_location("earlier_model", ARTIFACTS / "model.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.build()


def edits(folder):
    """All but the layout, which the machine's own measurement decides."""
    written = json.loads((folder / "modelspeed.json").read_text())["edits"]
    return [edit for edit in written if edit["edit"] != "ChannelsLast"]


def shapes(folder):
    with safe_open(folder / "model.safetensors", "pt") as file:
        return {name: file.get_slice(name).get_shape() for name in file.keys()}


def test_the_fixtures_are_what_their_names_say():
    kinds = {kind: {edit["edit"] for edit in edits(ARTIFACTS / kind)} for kind in KINDS}
    assert kinds["float"] == {"FoldBatchNorm"}
    assert kinds["int8"] == {"FoldBatchNorm", "QuantizeWeight", "QuantizeInput"}
    assert kinds["pruned"] == {"FoldBatchNorm", "Slice"}


@pytest.mark.parametrize("kind", KINDS)
def test_it_loads_and_gives_the_outputs_it_gave(kind):
    assert off(modelspeed.load(ARTIFACTS / kind), kind) < TOLERANCE[kind]
    assert off(modelspeed.load(ARTIFACTS / kind, runtime="plain"), kind) < TOLERANCE[kind]


@pytest.mark.parametrize("kind", ["float", "pruned"])
def test_it_loads_onto_its_own_class(kind):
    own = network()
    loaded = modelspeed.load(ARTIFACTS / kind, model=own)
    assert type(loaded) is type(own) and off(loaded, kind) < TOLERANCE[kind]
    if kind == "pruned":
        assert loaded.first.weight.shape[0] < own.first.weight.shape[0]


@pytest.mark.parametrize(
    "kind", [k if k == "int8" else pytest.param(k, marks=pytest.mark.long) for k in KINDS]
)
def test_check_verifies_it(kind):
    recipe = ARTIFACTS / kind / "recipe.yaml"
    out = run("check", ARTIFACTS / kind, "--target-ms", "10000", "--max-drop", "0.5", "--config",
              recipe, "--trust-code", "--threads", "1", "--json")  # fmt: skip
    cases = {case["name"]: case["outcome"] for case in json.loads(out)["cases"]}
    assert set(cases.values()) == {"passed"}
    assert set(cases) == {"artifact", "outputs", "latency", "accuracy"}


@pytest.mark.long
@pytest.mark.parametrize("kind", KINDS)
def test_its_recipe_makes_it_again(kind, tmp_path):
    run("apply", ARTIFACTS / "ckpt.pt", "--config", ARTIFACTS / kind / "recipe.yaml", "--threads",
        "1", "--trust-code", "--out", tmp_path / "again")  # fmt: skip
    again = tmp_path / "again"
    assert [e["edit"] for e in edits(again)] == [e["edit"] for e in edits(ARTIFACTS / kind)]
    assert shapes(again) == shapes(ARTIFACTS / kind)
    assert off(modelspeed.load(again), kind) < 0.05


def holds(shown, stored):
    """True if all that was stored is shown; what records have learned since has its default."""
    if isinstance(stored, dict):
        return all(holds(shown[name], value) for name, value in stored.items())
    return shown == stored


@pytest.mark.parametrize("kind", KINDS)
def test_its_record_is_shown(kind):
    shown = json.loads(run("show", ARTIFACTS / kind, "--format", "json"))
    manifest = json.loads((ARTIFACTS / kind / "modelspeed.json").read_text())
    assert holds(shown, manifest["record"])
