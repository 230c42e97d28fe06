"""A lever that slows, planted in a whole run: it goes again, and the report says so."""

from __future__ import annotations

import json
from dataclasses import dataclass

import modelspeed
import pico
import pytest
import quick
import torch
from modelspeed.adjusters.plan import Adjuster, Plan
from modelspeed.adjusters.registry import ADJUSTERS
from modelspeed.cli.main import app
from modelspeed.core.errors import ArtifactError
from modelspeed.graph.edits import apply as edits
from typer.testing import CliRunner

aten = torch.ops.aten
RECIPE = """
version: 1
model: {factory: "model.py:build"}
inputs: [{shape: [1, 1, 12, 12]}]
data: {factory: "data.py:loaders"}
adjust:
  - %s
  - fold_batchnorm
"""


@dataclass(frozen=True)
class Drag:
    """Pass what `node` gives through operators that change nothing."""

    node: str
    count: int = 150


def drag(module, edit):
    node = last = next(n for n in module.graph.nodes if n.name == edit.node)
    for _ in range(edit.count):
        with module.graph.inserting_after(last):
            last = module.graph.call_function(aten.mul.Tensor, (last, 1.0))
    last.meta.update(node.meta)
    node.replace_all_uses_with(last, delete_user_cb=lambda u: u.target is not aten.mul.Tensor)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("MODELSPEED_CACHE", str(tmp_path / "cache"))
    monkeypatch.setitem(edits.KINDS, "Drag", Drag)
    monkeypatch.setitem(edits._KEYS, Drag, "Drag")
    monkeypatch.setitem(edits._APPLY, Drag, drag)
    quick.hasten(monkeypatch.setattr)
    return pico.project(tmp_path / "user").parent


def tuned(folder, step):
    (folder / "modelspeed.yaml").write_text(RECIPE % step)
    words = ["tune", folder / "ckpt.pt", "--target-ms", "0.0001", "--threads", "1", "--json"]
    done = CliRunner().invoke(app, [*map(str, words), "--out", str(folder / "fast")])
    assert done.stdout, done.stderr
    return json.loads(done.stdout)


@pytest.mark.long
@pytest.mark.parametrize(
    ("step", "must_be_faster"), [("precision", True), ("flush_subnormals", False)]
)
def test_a_lever_that_slows_is_rolled_back_and_reported(folder, monkeypatch, step, must_be_faster):
    planted = Adjuster(
        step, "slows", lambda *_: Plan((Drag("relu"),), must_be_faster=must_be_faster)
    )
    monkeypatch.setitem(ADJUSTERS, step, planted)
    record = tuned(folder, step)
    first, second = record["steps"]
    assert first["status"] == "rolled back" and first["reason"].startswith("measured slower")
    assert first["latency_after"] > 1.5 * first["latency_before"]
    assert second["adjuster"] == "fold_batchnorm" and second["status"] == "kept"
    assert "Drag" not in (folder / "fast" / "modelspeed.json").read_text()
    assert "measured slower" in (folder / "fast" / "report.md").read_text()
    program = torch.export.load(folder / "fast" / "model.pt2")
    assert sum(n.target is aten.mul.Tensor for n in program.graph.nodes) == 0


@pytest.mark.long
def test_the_planted_lever_would_stay_if_it_did_not_slow(folder, monkeypatch):
    """The test above can fail: the same step without the drag is kept."""
    planted = Adjuster("flush_subnormals", "", lambda *_: Plan((Drag("relu", 0),)))
    monkeypatch.setitem(ADJUSTERS, "flush_subnormals", planted)
    assert tuned(folder, "flush_subnormals")["steps"][0]["status"] == "kept"


@pytest.mark.long
def test_a_layer_split_in_two_comes_back_from_the_artifact_with_the_fitted_weights(folder):
    (folder / "modelspeed.yaml").write_text(RECIPE % "low_rank: {ratio: 0.5}")
    words = ["apply", folder / "ckpt.pt", "--threads", "1", "--out", folder / "fast", "--json"]
    done = CliRunner().invoke(app, list(map(str, words)))
    record = json.loads(done.stdout)
    assert record["parameters_after"] < record["parameters_before"]
    scope = {}
    exec(pico.MODEL_FILE, scope)
    with torch.no_grad():
        x = pico.images(4)
        wanted = torch.export.load(folder / "fast" / "model.pt2").module()(x)
        loaded = modelspeed.load(folder / "fast")
        torch.testing.assert_close(loaded(x), wanted, rtol=1e-4, atol=1e-5)
    with pytest.raises(ArtifactError, match="is several layers in the artifact"):
        modelspeed.load(folder / "fast", model=scope["build"]())
