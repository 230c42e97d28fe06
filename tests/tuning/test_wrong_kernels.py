"""A lowering that computes something else is refused by all that could choose, ship or run it."""

from __future__ import annotations

import json
import warnings

import modelspeed
import pico
import pytest
import quick
import torch
from modelspeed.backends import lowered as lowered_backend
from modelspeed.backends import ranking
from modelspeed.cli.main import app
from modelspeed.core.errors import MachineWarning
from modelspeed.graph.lowering import lower as lowering
from modelspeed.graph.lowering import prepack
from modelspeed.runtime.loaded import running
from modelspeed.tuning import delivery as results
from typer.testing import CliRunner

RELUS = (torch.ops.aten.relu.default, torch.ops.aten.relu_.default)
PACKED = ("onednn", "onednn_channels_last")


class WrongKernels:
    """oneDNN's, with one channel of every convolution 2 % off."""

    def __getattr__(self, name):
        return getattr(torch.ops.mkldnn, name)

    def _reorder_convolution_weight(self, weight, *sizes):
        weight = weight.clone()
        weight[0] *= 1.02
        return torch.ops.mkldnn._reorder_convolution_weight(weight, *sizes)


def kernel(monkeypatch):
    monkeypatch.setattr(prepack, "mkldnn", WrongKernels())


def lowered(monkeypatch):
    """Every lowering loses the activations."""
    real = lowering.folded_copy

    def wrong(module):
        graph = real(module)
        for node in graph.graph.nodes:
            if node.target in RELUS:
                node.replace_all_uses_with(node.args[0])
        graph.recompile()
        return graph

    monkeypatch.setattr(lowering, "folded_copy", wrong)


@pytest.fixture
def project(tmp_path, monkeypatch):
    monkeypatch.setenv("MODELSPEED_CACHE", str(tmp_path / "cache"))
    quick.hasten(monkeypatch.setattr)
    # What is fastest must not depend on this machine: the last lowering, if it may be chosen.
    measure = ranking.measure_interleaved

    def fastest_last(runs, **options):
        rows = measure(runs, **options)
        return [type(r)(r.percentile, *[9.0 - i] * 3) for i, r in enumerate(rows)]

    monkeypatch.setattr(ranking, "measure_interleaved", fastest_last)
    monkeypatch.setattr(ranking, "_worth_measuring", lambda modules, _: modules)
    monkeypatch.setattr(lowered_backend, "worth_packing", prepack.always)
    recipe = pico.RECIPE.replace("- prune\n", "- prune: {ratio: 0.25}\n")
    return pico.project(tmp_path / "user", recipe).parent


def run(*words):
    done = CliRunner().invoke(app, [str(w) for w in words])
    assert done.exit_code in (0, 1, 3, 4, 5), done.output
    return done.exit_code, json.loads(done.stdout), done.stderr


def made(project, verb="apply"):
    words = ["--runtime", "lowered", *(["--target-ms", "1000"] if verb == "tune" else [])]
    return run(verb, project / "ckpt.pt", *words, "--out", project / "out", "--json")


@pytest.mark.parametrize("verb", [pytest.param("tune", marks=pytest.mark.long), "apply"])
def test_a_right_one_is_chosen_and_its_closeness_recorded(project, verb):
    _, record, _ = made(project, verb)
    assert record["runtime_used"] in PACKED
    assert 0 < record["closeness"]["error"] < record["closeness"]["allowed"] == 1e-3
    assert record["closeness"]["batches"][0] == 1 and 3 in record["closeness"]["batches"]


@pytest.mark.parametrize("plant", [kernel, pytest.param(lowered, marks=pytest.mark.long)])
@pytest.mark.parametrize("verb", ["tune", pytest.param("apply", marks=pytest.mark.long)])
def test_tune_and_apply_leave_a_wrong_one_out_and_say_so(project, monkeypatch, plant, verb):
    plant(monkeypatch)
    _, record, _ = made(project, verb)
    assert record["runtime_used"] not in PACKED
    left = {row["what"]: row["reason"] for row in record["left_alone"]}
    assert all("differ from the plain graph" in left[f"runtime `{name}`"] for name in PACKED)


@pytest.mark.parametrize("plant", [kernel, pytest.param(lowered, marks=pytest.mark.long)])
def test_one_that_is_wrong_in_the_fresh_process_alone_is_not_shipped(project, monkeypatch, plant):
    verify = results.verify

    def elsewhere(*arguments):
        with monkeypatch.context() as other:
            plant(other)
            return verify(*arguments)

    monkeypatch.setattr(results, "verify", elsewhere)
    _, record, _ = made(project)
    assert record["runtime_used"] not in PACKED
    assert any(row["what"] == "runtime `onednn_channels_last`" for row in record["left_alone"])
    manifest = json.loads((project / "out" / "modelspeed.json").read_text())
    assert manifest["runtime"] == record["runtime_used"]


@pytest.mark.parametrize("plant", [kernel, pytest.param(lowered, marks=pytest.mark.long)])
def test_load_warns_and_runs_something_right(project, monkeypatch, plant):
    made(project)
    x = pico.images(3)
    wanted = modelspeed.load(project / "out", runtime="plain")(x)
    plant(monkeypatch)
    with pytest.warns(MachineWarning, match="which is not used: the outputs of `onednn"):
        module = modelspeed.load(project / "out")
    with torch.no_grad():
        torch.testing.assert_close(module(x), wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.long
@pytest.mark.parametrize("plant", [pytest.param(kernel, marks=pytest.mark.long), lowered])
def test_check_fails_where_a_kernel_is_wrong(project, monkeypatch, plant):
    made(project)
    words = ("check", project / "out", "--target-ms", "1000", "--json")
    code, report, _ = run(*words)
    assert code == 0 and {c["name"]: c["outcome"] for c in report["cases"]}["outputs"] == "passed"
    plant(monkeypatch)
    code, report, _ = run(*words)
    case = next(c for c in report["cases"] if c["name"] == "outputs")
    assert code == 1 and case["outcome"] == "failed" and "differ" in case["text"]


@pytest.mark.long
def test_the_plants_are_wrong(project, monkeypatch):
    """The tests above can fail: unplanted, the same runs choose and load the lowering."""
    made(project)
    with warnings.catch_warnings():
        warnings.simplefilter("error", MachineWarning)
        module = modelspeed.load(project / "out")
    assert any("_packed_" in name for name, _ in running(module).named_buffers())
