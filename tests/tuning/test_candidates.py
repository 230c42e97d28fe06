"""Candidates of recipes that change what a layer gives: what they are fitted to."""

from __future__ import annotations

from types import SimpleNamespace

import pico
import torch
from modelspeed.adjusters import input_size
from modelspeed.adjusters.plan import Context
from modelspeed.configs.recipe import make_step
from modelspeed.core.model_io import Inputs
from modelspeed.graph.analysis.groups import analyze, keep_units
from modelspeed.graph.capture import capture, clone
from modelspeed.graph.edits.apply import SpatialFactor, apply
from modelspeed.search.variant import Variant
from modelspeed.tuning.candidates import fit
from modelspeed.tuning.time_plan import TimePlan

COMPENSATE = make_step("compensate").settings


def session_of(original, data):
    return SimpleNamespace(
        original=original,
        data=SimpleNamespace(calibration=data, train=data),
        device="cpu",
        inputs=Inputs.of(data[0][0]),
        time=TimePlan(),
    )


def test_the_parts_of_a_split_layer_are_not_fitted_to_what_the_whole_one_gave():
    original = capture(pico.net(["residual"]), (pico.images(1),))
    analysis = analyze(original)
    narrow = keep_units(analysis, {"blocks.0.conv1": [0]})
    edits = [*narrow, SpatialFactor("conv2d_2", 8)]  # a rank as large as its outputs
    variant = Variant(apply(clone(original), edits), tuple(edits))
    first = variant.module.get_parameter("blocks.0.conv2.weight").clone()
    data = [(pico.images(16, seed), None) for seed in range(4)]
    assert fit(session_of(original, data), variant, variant.module, COMPENSATE) >= 1
    assert torch.equal(variant.module.get_parameter("blocks.0.conv2.weight"), first)


def test_at_a_smaller_input_weights_are_fitted_to_the_original_at_that_size():
    inputs = Inputs.of(pico.images(1))
    data = [(pico.images(16, seed), None) for seed in range(4)]
    original = capture(pico.net(["residual"]), inputs)
    edits = list(
        input_size.plan(Context(original, inputs), make_step("input_size", size=8).settings).edits
    )
    whole = apply(clone(original), edits)
    context = Context(whole, inputs)
    edits += keep_units(context.analysis, {g.name: [0] for g in context.analysis.prunable})
    variant = Variant(apply(clone(original), edits), tuple(edits))
    fitted = clone(variant.module)
    assert fit(session_of(original, data), variant, fitted, COMPENSATE) >= 2
    x = pico.images(32, 9)
    with torch.inference_mode():
        before, after = ((m(x) - whole(x)).norm() for m in (variant.module, fitted))
    assert after < 0.5 * before
