"""Convolutions as chains of smaller ones: along the kernel's axes, and between few channels."""

from __future__ import annotations

import pico
import pytest
import torch
from modelspeed.adjusters import low_rank
from modelspeed.adjusters.methods.kernel_factorizations import spatial_splits, tucker_splits
from modelspeed.adjusters.methods.spectrum import observe_layers
from modelspeed.adjusters.plan import Context
from modelspeed.configs.recipe import make_step
from modelspeed.core.errors import EditError
from modelspeed.core.model_io import Inputs
from modelspeed.graph.analysis.groups import analyze, keep_units
from modelspeed.graph.capture import capture, clone, export_program, module_of, tensor_at
from modelspeed.graph.edits.apply import (
    SpatialFactor,
    TuckerFactor,
    apply,
    edits_from_json,
    edits_to_json,
)
from modelspeed.graph.layers import layers_of
from modelspeed.graph.lowering.lower import lowerings
from sources import assert_same
from torch import nn


def smooth(count, seed, channels=3):
    g = torch.Generator().manual_seed(seed)
    small = torch.randn(count, channels, 5, 5, generator=g)
    return nn.functional.interpolate(small, size=(16, 16), mode="bilinear") + 1


DATA = [(smooth(32, seed), None) for seed in range(4)]
ONE = Inputs.of(smooth(1, 9))


def net():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 12, 3, padding=1), nn.ReLU(), nn.Conv2d(12, 16, 3, stride=2, padding=1)
    ).eval()


@pytest.mark.parametrize(
    "edit",
    [SpatialFactor("conv2d", 18), TuckerFactor("conv2d", (6, 8)),
     SpatialFactor("conv2d_1", 12), TuckerFactor("conv2d_1", (8, 4))],
)  # fmt: skip
def test_at_full_rank_it_is_the_same_layer_whatever_its_sizes(edit):
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(6, 8, (3, 5), stride=(2, 1), padding=(1, 2), dilation=(1, 2)), nn.ReLU(),
        nn.Conv2d(8, 4, 3, bias=False, stride=(1, 2)), nn.BatchNorm2d(4),
    ).eval()  # fmt: skip
    inputs = Inputs.of(torch.randn(2, 6, 12, 14))
    module = capture(model, inputs)
    made = apply(clone(module), edits_from_json(edits_to_json([edit])))
    with torch.inference_mode():
        wanted = module(inputs[0])
        torch.testing.assert_close(made(inputs[0]), wanted, rtol=1e-4, atol=1e-5)
        for lowered in (build() for build in lowerings(made, inputs).values()):
            torch.testing.assert_close(lowered(inputs[0]), wanted, rtol=1e-4, atol=1e-5)
    again = module_of(export_program(clone(made), inputs))
    shapes = [
        [str(n.meta["val"].shape[1:]) for n in m.graph.nodes if n.op == "call_function"]
        for m in (made, again)
    ]
    assert shapes[0] == shapes[1] and len(shapes[0]) > 4
    assert_same(again, inputs)


def test_signals_have_channels_alone_to_separate():
    inputs = Inputs.of(torch.randn(2, 4, 20))
    module = capture(nn.Sequential(nn.Conv1d(4, 6, 5, padding=2)), inputs)
    made = apply(clone(module), [TuckerFactor("conv1d", (4, 6))])
    torch.testing.assert_close(made(inputs[0]), module(inputs[0]), rtol=1e-4, atol=1e-5)
    with pytest.raises(EditError, match="no kernel that can be split so"):
        apply(module, [SpatialFactor("conv1d", 4)])


@torch.no_grad()
def test_the_error_that_is_promised_is_the_error_on_other_data_and_far_below_the_weights_alone():
    module = capture(net(), ONE)
    context = Context(module, ONE, DATA)
    layer = list(layers_of(module))[1]
    seen = observe_layers(context, [layer], 128, {layer.node})[layer.node]
    x = smooth(64, 123)
    y = module(x)
    for ways in (spatial_splits, tucker_splits):
        found = ways(module, layer, seen, 0.05)
        assert found and all(w.error <= 0.05 for w in found)
        for way in found:
            made, lost = apply(clone(module), [way.edit]), []
            for weights in ({}, way.weights()):
                for name, value in weights.items():
                    tensor_at(made, name).data.copy_(value)
                variance = (y - y.mean((0, 2, 3), keepdim=True)).square().sum()
                lost.append(float((made(x) - y).square().sum() / variance))
            assert lost[1] == pytest.approx(way.error, abs=0.01) and lost[1] < 0.2 * lost[0]
        assert ways(module, layer, None, 0.05) == []  # random weights have no low rank


@pytest.mark.parametrize("form", ["channels", "spatial", "tucker"])
def test_of_all_forms_the_one_that_measures_fastest_is_taken(form, monkeypatch):
    kind = {"channels": "Factor", "spatial": "SpatialFactor", "tucker": "TuckerFactor"}[form]

    def timed(_context, _whole, _example, splits):
        return [1.0, *(0.5 if type(s).__name__ == kind else 0.9 for s in splits)]

    monkeypatch.setattr(low_rank, "_time", timed)
    module = capture(net(), ONE)
    plan = low_rank.plan(
        Context(module, ONE, DATA), make_step("low_rank", max_error=0.1, skip=("0",)).settings
    )
    assert [type(edit).__name__ for edit in plan.edits] == [kind]
    made = plan.apply(clone(module))
    x = smooth(16, 5)
    assert (made(x) - module(x)).norm() < 0.4 * (module(x) - module(x).mean((0, 2, 3), True)).norm()


def test_a_form_that_is_asked_for_is_the_only_one_tried(monkeypatch):
    tried = []
    monkeypatch.setattr(low_rank, "_time", lambda *given: [1.0, *(0.5 for _ in given[3])])
    for form in ("spatial", "tucker"):
        settings = make_step("low_rank", max_error=0.1, form=form, skip=("0",)).settings
        plan = low_rank.plan(Context(capture(net(), ONE), ONE, DATA), settings)
        tried += [type(e).__name__ for e in plan.edits]
    assert tried == ["SpatialFactor", "TuckerFactor"]


def test_a_split_convolution_is_pruned_like_any_other():
    module = capture(pico.net(["residual"]), (pico.images(),))
    apply(module, [TuckerFactor("conv2d_1", (6, 6)), SpatialFactor("conv2d_2", 16)])
    analysis = analyze(module)
    names = {g.name for g in analysis.prunable}
    assert {"blocks.0.conv1", "blocks.0.conv1.core", "blocks.0.conv2"} <= names
    made = apply(module, keep_units(analysis, {name: [0, 2] for name in names}))
    assert made(pico.images()).shape == (2, 3)


def test_what_can_not_be_split_so_is_refused():
    module = capture(pico.net(["depthwise"]), (pico.images(),))
    for edit, part in (
        (SpatialFactor("conv2d", 25), r"ranks \[3\], so it can't have \[25\]"),
        (TuckerFactor("conv2d", (1, 0)), r"ranks \[1, 8\]"),
        (SpatialFactor("conv2d_1", 2), "grouped"),
        (TuckerFactor("conv2d_2", (2, 2)), "no kernel"),
        (SpatialFactor("relu", 2), "not a layer"),
    ):
        with pytest.raises(EditError, match=part):
            apply(clone(module), [edit])
