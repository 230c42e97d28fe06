from __future__ import annotations

import pico
import pytest
import torch
import zoo
from modelspeed.adjusters.plan import Context
from modelspeed.adjusters.quantize import plan
from modelspeed.adjusters.registry import ADJUSTERS
from modelspeed.configs.recipe import make_step
from modelspeed.core.errors import EditError
from modelspeed.core.model_io import Inputs, leaves, plain
from modelspeed.graph.analysis.groups import analyze, keep_units
from modelspeed.graph.capture import capture, clone, export_program, module_of
from modelspeed.graph.edits.apply import (
    QuantizeDynamic,
    QuantizeInput,
    QuantizeWeight,
    apply,
    edits_from_json,
    edits_to_json,
)
from modelspeed.graph.lowering import int8
from modelspeed.graph.lowering.int8 import dequantize, quantize, quantize_now, runs_here
from modelspeed.graph.lowering.lower import lowerings
from torch import nn

KERNELS = ("onednn", "onednn_channels_last")
DATA = [(pico.images(16, seed), None) for seed in range(2)]


def quantized(model, **settings):
    module = capture(model, (pico.images(1),))
    context = Context(module, Inputs.of((pico.images(1),)), DATA)
    made = plan(context, make_step("quantize", **settings).settings)
    return apply(clone(module), made.edits), made.edits


def lowered(module, name="onednn_channels_last"):
    return lowerings(module, Inputs.of((pico.images(1),)))[name]()


def calls(module, target):
    return [n for n in module.graph.nodes if n.target is target]


class Chain(nn.Module):
    """What hands integers on: max-pooling, concatenation, reshaping."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 6, 1)
        self.c, self.d = nn.Conv2d(4, 6, 3, padding=1), nn.Conv2d(12, 3, 3)
        self.head = nn.Linear(3 * 4 * 4, 3)

    def forward(self, x):
        x = nn.functional.max_pool2d(torch.relu(self.a(x)), 2)
        y = torch.cat([torch.relu(self.b(x)), torch.relu(self.c(x))], 1)
        y = torch.relu(self.d(y))
        return self.head(y.view(y.shape[0], -1))


class Kept(nn.Module):
    """Residuals that something reads once more after they were added."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = (nn.Conv2d(i, 4, 3, padding=1) for i in (1, 4, 4))

    def forward(self, x):
        x = torch.relu(self.a(x))
        y = torch.relu(self.b(x) + x)
        return torch.relu(self.c(y) + x) + y.mean()


@pytest.mark.parametrize("name", KERNELS)
@pytest.mark.parametrize("model", [*sorted(pico.BLOCKS), Chain, Kept])
def test_kernels_stay_within_one_step_of_the_graph(model, name):
    module, _ = quantized(pico.net([model, "residual"]) if isinstance(model, str) else model())
    ready = lowered(module, name)
    assert "onednn.qconv2d" in ready.code
    for batch in (1, 5):
        x = pico.images(batch, 7)
        kept = x.clone()
        with torch.inference_mode():
            wanted = module(x)
            for _ in range(2):
                step = float(wanted.max() - wanted.min()) / 255
                assert float((ready(x) - wanted).abs().max()) <= step
        assert torch.equal(x, kept)


ENTRIES = ("Vit", "Bert", "PreactResidual", "InPlace", "DenseConcat", "UNet", "MobileOne", "Fused")


@pytest.mark.parametrize("name", ENTRIES)
@pytest.mark.parametrize("adjuster", ["quantize", "precision"])
def test_nets_of_every_kind_run_on_the_kernels_of_their_format(name, adjuster):
    torch.manual_seed(0)
    entry = zoo.ZOO[name]
    inputs = Inputs.of(entry.inputs)
    context = Context(capture(entry.model(), entry.inputs), inputs, [(entry.inputs, None)])
    made = ADJUSTERS[adjuster].plan(context, make_step(adjuster).settings)
    module = module_of(export_program(apply(clone(context.module), made.edits), entry.inputs))
    ready = lowerings(module, inputs)["onednn"]()
    layers = sum(isinstance(e, QuantizeWeight) for e in made.edits)
    assert ready.code.count("torch.ops.onednn.q") == layers
    with torch.inference_mode():
        wanted, found = (leaves(plain(inputs.call(m))) for m in (module, ready))
    for one, other in zip(wanted, found, strict=True):
        torch.testing.assert_close(other, one, rtol=0.02, atol=0.02 * float(one.abs().max()))


@pytest.mark.parametrize("adjuster", ["quantize", "precision"])
def test_pruned_nets_run_on_the_kernels_too(adjuster):
    module = capture(pico.net(["residual", "grouped", "branches"], width=16), (pico.images(1),))
    analysis = analyze(module)
    apply(module, keep_units(analysis, {g.name: range(g.size // 2) for g in analysis.prunable}))
    context = Context(module, Inputs.of((pico.images(1),)), DATA)
    apply(module, ADJUSTERS[adjuster].plan(context, make_step(adjuster).settings).edits)
    with torch.inference_mode():
        wanted, found = module(pico.images(3)), lowered(module)(pico.images(3))
    torch.testing.assert_close(found, wanted, rtol=0.02, atol=0.02 * float(wanted.abs().max()))


def test_a_graph_without_int8_stays_as_it_is():
    module = capture(pico.net(["residual"]), (pico.images(1),))
    assert "qconv" not in lowered(module).code


def test_neighbors_hand_each_other_integers():
    module, _ = quantized(Chain())
    ready = lowered(module)
    assert len(calls(ready, quantize)) == 1 and not calls(ready, dequantize)
    module, _ = quantized(pico.net(["residual", "residual"]))
    ready = lowered(module)
    # The images, and the pooled features for the head; the last sum goes on as floats.
    assert len(calls(ready, quantize)) == 2 and len(calls(ready, dequantize)) <= 1
    assert ready.code.count("qconv2d_pointwise.binary") == 2


def test_without_vnni_activations_have_seven_bits_and_eight_are_not_lowered(monkeypatch):
    eight, _ = quantized(Chain())
    monkeypatch.setattr(int8, "sums_whole_bytes", lambda: False)
    seven, edits = quantized(Chain())
    assert {e.levels for e in edits if isinstance(e, QuantizeInput)} == {127}
    assert runs_here(seven) and not runs_here(eight)
    x = pico.images(3)
    for module in (seven, eight):
        torch.testing.assert_close(lowered(module)(x), module(x), rtol=0.02, atol=0.02)
    assert "qconv2d" not in lowered(eight).code


def test_weights_alone_in_int8_run_on_the_float_kernels():
    module, _ = quantized(pico.net(["residual"]), scheme="int8_weight")
    for name in lowerings(module, Inputs.of((pico.images(1),))):
        ready = lowered(module, name)
        assert "int8" not in ready.code and "qconv" not in ready.code
        torch.testing.assert_close(ready(pico.images(2)), module(pico.images(2)))


def test_what_is_no_float_layer_is_refused():
    module, _ = quantized(Chain())
    for edit in (QuantizeWeight("conv2d"), QuantizeWeight("relu")):
        with pytest.raises(EditError, match="float32 weight of its own"):
            apply(module, [edit])
    for edit in (QuantizeInput("conv2d", 9, 0.1, 0, 255), QuantizeInput("conv2d", 0, 0.1, 9, 300)):
        with pytest.raises(EditError):
            apply(module, [edit])


class Signal(nn.Module):
    """1-d convolutions of every kind, a residual, and a pool in between."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Conv1d(1, 16, 5, stride=2, padding=2)
        self.b = nn.Conv1d(16, 16, 3, padding=2, dilation=2, groups=4)
        self.c = nn.Conv1d(16, 16, 1)
        self.d = nn.Conv1d(16, 8, 3)
        self.head = nn.Linear(8, 3)

    def forward(self, x):
        x = torch.relu(self.a(x))
        x = torch.relu(self.c(torch.relu(self.b(x))) + x)
        return self.head(self.d(nn.functional.max_pool1d(x, 2)).mean(-1))


@pytest.mark.skipif(not hasattr(torch.ops.onednn, "qconv2d_pointwise"), reason="no oneDNN kernels")
def test_one_dimensional_convolutions_run_on_the_kernels_for_images():
    torch.manual_seed(0)
    inputs = Inputs.of((torch.randn(1, 1, 40),))
    context = Context(capture(Signal().eval(), tuple(inputs)), inputs,
                      [(torch.randn(16, 1, 40), None)])  # fmt: skip
    made = plan(context, make_step("quantize").settings)
    module = module_of(export_program(apply(clone(context.module), made.edits), tuple(inputs)))
    ready = lowerings(module, inputs)["onednn"]()
    assert ready.code.count("onednn.qconv2d_pointwise") == 4 and "conv1d" not in ready.code
    assert len(calls(ready, quantize)) == 4  # b and c hand on integers
    for rows in (1, 5):
        x = torch.randn(rows, 1, 40)
        with torch.inference_mode():
            wanted = module(x)
            step = float(wanted.max() - wanted.min()) / 100 + 1e-3
            assert float((ready(x) - wanted).abs().max()) <= step


def anew(name="Bert"):
    torch.manual_seed(0)
    entry = zoo.ZOO[name]
    inputs = Inputs.of(entry.inputs)
    context = Context(capture(entry.model(), entry.inputs), inputs)
    return context, plan(context, make_step("quantize", scheme="int8_dynamic").settings)


@pytest.mark.skipif(not hasattr(torch.ops.onednn, "qlinear_pointwise"), reason="no oneDNN kernels")
@pytest.mark.parametrize("name", ["Bert", "Vit"])
def test_ranges_taken_at_the_call_need_no_data_and_run_on_the_kernels(name):
    context, made = anew(name)
    layers = sum(isinstance(e, QuantizeWeight) for e in made.edits)
    assert (
        layers and made.must_be_faster and not any(isinstance(e, QuantizeInput) for e in made.edits)
    )
    edits = edits_from_json(edits_to_json(made.edits))
    module = module_of(export_program(apply(clone(context.module), edits), tuple(context.inputs)))
    ready = lowerings(module, context.inputs)["onednn"]()
    assert ready.code.count("onednn.qlinear_pointwise.tensor") == layers
    with torch.inference_mode():
        rows = [leaves(plain(context.inputs.call(m))) for m in (context.module, module, ready)]
    for exact, wanted, found in zip(*rows, strict=True):
        size = float(exact.abs().max())
        torch.testing.assert_close(found, wanted, rtol=0.02, atol=0.02 * size)
        torch.testing.assert_close(wanted, exact, rtol=0.1, atol=0.1 * size)
        assert not torch.equal(wanted, exact)


def test_layers_that_read_the_same_value_share_its_rounding():
    class Three(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.c = (nn.Linear(16, 16) for _ in range(3))

        def forward(self, x):
            x = torch.tanh(x)
            return self.a(x) + self.b(x) * self.c(x)

    inputs = Inputs.of((torch.randn(2, 16),))
    context = Context(capture(Three(), tuple(inputs)), inputs)
    made = plan(context, make_step("quantize", scheme="int8_dynamic").settings)
    ready = lowerings(apply(clone(context.module), made.edits), inputs)["onednn"]()
    assert len(calls(ready, quantize_now)) == (1 if runs_here(context.module) else 0)


def test_a_rounding_out_of_range_is_refused():
    module = capture(pico.net(["residual"]), (pico.images(1),))
    for place, half in ((0, 0), (0, 200), (9, 63)):
        with pytest.raises(EditError, match="can't be rounded"):
            apply(clone(module), [QuantizeDynamic("linear", place, half)])
    with pytest.raises(EditError, match="`conv2d` can't be rounded"):
        apply(clone(module), [QuantizeDynamic("conv2d", 0, 63)])
