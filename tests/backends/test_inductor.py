from __future__ import annotations

import os
import subprocess
import sys
from types import SimpleNamespace

import pico
import pytest
import torch
from modelspeed.backends import inductor
from modelspeed.backends import registry as runtimes
from modelspeed.backends.compiler import lacks_compiler
from modelspeed.backends.inductor import INDUCTOR, compiled
from modelspeed.backends.shape_guard import ShapeGuarded, for_inputs
from modelspeed.core.errors import MeasureError, UsageError
from modelspeed.core.model_io import Inputs
from modelspeed.core.progress import Silent
from modelspeed.core.records import Closeness, Latency, RuntimeCost, Target
from modelspeed.graph.capture import capture, clone
from modelspeed.search.variant import Variant
from modelspeed.tuning import compare_backends
from modelspeed.tuning.exclusions import Exclusions
from modelspeed.tuning.job import prepare_machine
from modelspeed.tuning.time_plan import TimePlan
from torch import nn

ONE = Inputs.of((pico.images(1),))


class Keyed(nn.Module):
    """Named inputs, nested outputs."""

    def __init__(self):
        super().__init__()
        self.a = nn.Linear(4, 4)

    def forward(self, x, mask=None):
        y = torch.relu(self.a(x)) * mask
        return {"y": y, "both": (y.sum(-1), x)}


@pytest.mark.skipif(lacks_compiler("cpu") is not None, reason="no C++ compiler")
@pytest.mark.filterwarnings("ignore")  # what torch's compiler says to itself
def test_compiled_gives_the_same_in_every_mode_and_for_other_shapes():
    torch.manual_seed(0)
    inputs = Inputs((torch.randn(1, 4),), {"mask": torch.ones(1, 4)})
    module = capture(Keyed().eval(), inputs)
    fast = compiled(module, clone(module), inputs)
    calls = []
    pick, fast.pick = fast.pick, lambda x: (found := pick(x)) and (calls.append(1) or found)
    for rows, mode in ((1, torch.inference_mode), (1, torch.enable_grad), (3, torch.no_grad)):
        with mode():
            x, mask = torch.randn(rows, 4), torch.rand(rows, 4)
            got, wanted = fast(x, mask=mask), module(x, mask=mask)
        assert got.keys() == wanted.keys() and type(got["both"]) is type(wanted["both"])
        torch.testing.assert_close(got["y"], wanted["y"])
        torch.testing.assert_close(got["both"][0], wanted["both"][0])
    assert len(calls) == 2  # the other shape went another way
    assert torch.equal(fast(torch.ones(1, 4).double().float(), mask=mask[:1])["both"][1],
                       torch.ones(1, 4))  # fmt: skip


def test_other_types_and_devices_are_not_what_was_compiled():
    module = capture(pico.net([]), tuple(ONE))
    fast = for_inputs(lambda x: "usual", module, ONE, lambda x: ["fast"])
    assert fast(pico.images(1)) == "fast" == fast(x=pico.images(1))
    assert fast(pico.images(2)) == fast(pico.images(1).double()) == "usual"
    assert fast(pico.images(1).to("meta")) == "usual"


def test_without_a_compiler_it_is_one_sentence_before_any_work(tmp_path):
    checkpoint = pico.project(tmp_path)
    words = ["-m", "modelspeed", "tune", checkpoint, "--runtime", "inductor", "--target-ms", "1"]
    done = subprocess.run([sys.executable, *words], capture_output=True, text=True,
                          env={**os.environ, "CXX": "/nonexistent/g++"})  # fmt: skip
    assert done.returncode == 2 and done.stdout == ""
    assert "needs a C++ compiler" in done.stderr and "Traceback" not in done.stderr
    assert "--runtime auto" in done.stderr


def test_an_artifact_tuned_for_it_loads_without_a_compiler_as_lowered(monkeypatch):
    monkeypatch.setattr(inductor, "lacks_compiler", lambda _: "needs a compiler")
    module = capture(pico.net(["residual"]), tuple(ONE))
    ready = runtimes.prepare(module, ONE, INDUCTOR)
    assert not isinstance(ready, ShapeGuarded)
    torch.testing.assert_close(ready(pico.images()), module(pico.images()), rtol=1e-4, atol=1e-5)


def test_only_the_runtime_asked_for_needs_a_compiler(monkeypatch):
    monkeypatch.setattr(inductor, "lacks_compiler", lambda _: "needs a compiler")
    prepare_machine(Target(runtime="lowered"), 0)
    with pytest.raises(UsageError, match="needs a compiler"):
        prepare_machine(Target(runtime=INDUCTOR), 0)


def settled(monkeypatch, times, *, runtime=INDUCTOR, fails=False, left_uncompiled=False):
    """The variant after it was tried under runtimes that take these ms."""

    def ready(module, inputs, name, package=None):
        if fails and name == INDUCTOR:
            return "torch.compile fails on this model: no"
        assert package == (None if left_uncompiled or name != INDUCTOR else b"native")
        return SimpleNamespace(name=name)

    def blob_of(module, inputs, name):
        if left_uncompiled:
            raise MeasureError("AOTInductor fails on this model: no")
        return b"native"

    def measure(runs, question, **_):
        rows = [[times[run()] * (1 + 0.001 * (i % 7)) for i in range(100)] for run in runs]
        question.answered(rows, 2, 1.0)
        return [Latency(50.0, r[0], r[0], r[6], tuple(r)) for r in rows]

    monkeypatch.setattr(compare_backends, "ready", ready)
    monkeypatch.setattr(compare_backends, "blob_of", blob_of)
    monkeypatch.setattr(compare_backends, "runner", lambda made, _: lambda: made.name)
    monkeypatch.setattr(compare_backends, "measure_interleaved", measure)
    monkeypatch.setattr(compare_backends, "plain_outputs", lambda module, probes: None)
    monkeypatch.setattr(compare_backends, "same_answers", lambda *_: Closeness(0.0, 1e-3))
    session = SimpleNamespace(
        job=SimpleNamespace(target=Target(runtime=runtime)), device="cpu", inputs=ONE,
        progress=Silent(), probes=(), exclusions=Exclusions(Silent()), trusted=lambda name: name,
        time=TimePlan(), runtimes_to_try=lambda module, usual: (usual,),
    )  # fmt: skip
    return compare_backends.under_fastest(session, Variant(None, runtime="onednn"))


def test_it_is_used_where_it_measures_faster_and_only_where_it_was_asked_for(monkeypatch):
    variant = settled(monkeypatch, {"plain": 3.0, "onednn": 2.0, INDUCTOR: 1.5})
    assert variant.runtime == INDUCTOR and variant.blob == b"native" and not variant.left_alone
    assert [(r.name, r.chosen) for r in variant.runtime_costs] == [
        ("plain", False), ("onednn", False), (INDUCTOR, True)]  # fmt: skip
    assert all(isinstance(r, RuntimeCost) for r in variant.runtime_costs)
    variant = settled(monkeypatch, {}, runtime="lowered")
    assert variant.runtime == "onednn" and variant.runtime_costs == ()


@pytest.mark.parametrize("ms", [2.0, 2.5])
def test_it_is_not_used_where_it_brings_nothing(monkeypatch, ms):
    variant = settled(monkeypatch, {"plain": 3.0, "onednn": 2.0, INDUCTOR: ms})
    assert (
        variant.runtime == "onednn"
        and variant.runtime_costs[1].chosen
        and len(variant.runtime_costs) == 3
    )
    assert variant.blob is None


def test_a_model_that_compiles_in_the_process_alone_says_so_and_runs_so(monkeypatch):
    variant = settled(
        monkeypatch, {"plain": 3.0, "onednn": 2.0, INDUCTOR: 1.5}, left_uncompiled=True
    )
    assert variant.runtime == INDUCTOR and variant.blob is None
    assert "AOTInductor fails" in variant.left_alone[0].reason


def test_a_model_that_does_not_compile_stays_lowered(monkeypatch):
    variant = settled(monkeypatch, {"plain": 3.0, "onednn": 2.0}, fails=True)
    assert variant.runtime == "onednn" and [r.name for r in variant.runtime_costs] == [
        "plain",
        "onednn",
    ]
