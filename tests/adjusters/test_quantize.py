from __future__ import annotations

from pathlib import Path

import modelspeed.examples.digits as digits
import pico
import pytest
import torch
from modelspeed.adjusters.methods.calibration import ObservedRange
from modelspeed.adjusters.plan import Context
from modelspeed.adjusters.quantize import plan
from modelspeed.checkpoints.read import read
from modelspeed.configs.recipe import make_step
from modelspeed.core.model_io import Inputs
from modelspeed.core.user_code import load_factory
from modelspeed.graph.capture import capture, clone
from modelspeed.graph.edits.apply import (
    QuantizeDynamic,
    QuantizeInput,
    QuantizeWeight,
    apply,
    edits_from_json,
    edits_to_json,
)
from modelspeed.graph.lowering.lower import lowerings
from modelspeed.profiling.side_by_side import agreement
from torch import nn

DATA = [(pico.images(16, seed), None) for seed in range(2)]
ONE = Inputs.of((pico.images(1),))


def settings(**given):
    return make_step("quantize", **given).settings


def context(model=None, train=DATA):
    return Context(capture(model or pico.net(["residual"]), tuple(ONE)), ONE, train)


def layers(made):
    return [e.node for e in made.edits if isinstance(e, QuantizeWeight)]


def test_without_data_nothing_is_quantized_and_it_says_so():
    made = plan(context(train=None), settings())
    assert made.edits == () and "no training data" in made.left_alone[0].reason


def test_weights_alone_need_no_data_and_are_not_for_speed():
    made = plan(context(train=None), settings(scheme="int8_weight"))
    assert len(layers(made)) == 4 and not made.must_be_faster
    assert not any(isinstance(e, QuantizeInput) for e in made.edits)


def test_skipped_and_unmatched_layers_stay_and_are_reported():
    at = context()
    made = plan(at, settings(match=("blocks.*", "stem"), skip=("stem",)))
    assert len(layers(made)) == 2
    assert {item.what for item in made.left_alone} == {"stem", "head"}
    assert plan(at, settings(match=("nothing",))).edits == ()


def test_a_shared_weight_stays():
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = nn.Conv2d(1, 1, 3, padding=1)

        def forward(self, x):
            return self.a(torch.relu(self.a(x)))

    made = plan(context(Twice()), settings())
    assert made.edits == () and "shared" in made.left_alone[0].reason


def test_planning_changes_nothing_and_batch_norms_go_first():
    at = context()
    before = {k: v.clone() for k, v in at.module.state_dict().items()}
    made = plan(at, settings())
    assert all(torch.equal(v, before[k]) for k, v in at.module.state_dict().items())
    assert [type(e).__name__ for e in made.edits[:2]] == ["FoldBatchNorm"] * 2
    assert made.must_be_faster


@pytest.mark.parametrize("block", sorted(pico.BLOCKS))
def test_edits_survive_json_and_stay_close_to_the_model(block):
    at = context(pico.net([block, "residual"]))
    edits = edits_from_json(edits_to_json(plan(at, settings()).edits))
    rounded = apply(clone(at.module), edits)
    x = pico.images(8, 9)
    with torch.no_grad():
        error = (rounded(x) - at.module(x)).norm() / at.module(x).norm()
    assert 0 < error < 0.05
    assert rounded.get_parameter("stem.weight").dtype == torch.int8


def test_the_most_sensitive_layers_are_kept_in_float():
    at = context()
    # What comes after it makes the errors of this layer 40 times as large.
    at.module.get_parameter("blocks.0.conv2.weight").data[:, 0, 0, 0] = 40.0
    made = plan(at, settings(keep_float=1, calibration="mse"))
    (kept,) = made.left_alone
    assert kept.what == "blocks.0.conv1" and "kept in float" in kept.reason
    assert len(layers(made)) == 3


def test_ranges_follow_the_calibration():
    values = torch.cat([torch.rand(20000) * 4 - 1, torch.tensor([60.0])])
    seen = ObservedRange()
    seen.note(values[:4000], torch.Generator())
    seen.samples = [values]
    seen.low, seen.high = -1.0, 60.0
    assert seen.steps("minmax", 255) == pytest.approx((61 / 255, 4))
    assert seen.steps("percentile", 255) == pytest.approx((4 / 255, 64), rel=0.02)
    scale, zero = seen.steps("mse", 255)
    assert 4 / 255 < scale < 61 / 255 and 0 <= zero <= 255
    positive = ObservedRange()
    positive.note(torch.rand(100) + 5, torch.Generator())
    assert positive.steps("minmax", 127)[1] == 0 and positive.low == 0.0


def test_the_digits_net_in_int8_answers_as_in_float():
    folder = Path(str(digits.__file__)).parent
    factory = load_factory("model.py:build", folder)
    source = read(folder / "digits_resnet.pt", factory=factory, args={"width": 32}).module
    train, held = load_factory("data.py:loaders", folder)()
    inputs = Inputs.of((torch.randn(1, 1, 32, 32),))
    original = capture(source, tuple(inputs))
    made = plan(Context(original, inputs, train), settings(examples=64))
    assert len(layers(made)) == 22
    ready = lowerings(apply(clone(original), made.edits), inputs)["onednn_channels_last"]()
    assert agreement(original, ready, held) >= 0.99


def test_bias_correction_takes_the_mean_error_out_of_each_layer():
    model = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 4, 1, bias=False),
                          nn.Flatten(), nn.Linear(4 * 144, 3)).eval()  # fmt: skip
    for layer in (model[0], model[4]):  # all weights round the same way
        layer.weight.data = torch.full_like(layer.weight, 0.0049)
        layer.weight.data.view(len(layer.weight), -1)[:, 0] = 1.0
    data = [(pico.images(16, seed) + 1, None) for seed in range(2)]
    at = context(model, data)
    plain, fixed = (plan(at, settings(bias_correction=on)) for on in (False, True))
    assert not plain.weights and set(fixed.weights) == {"0.bias", "4.bias"}
    assert plain.edits == fixed.edits
    x = torch.cat([x for x, _ in data])
    with torch.no_grad():
        wanted = at.module(x)
        gaps = [
            float((made.apply(clone(at.module))(x) - wanted).mean(0).norm())
            for made in (plain, fixed)
        ]
    assert gaps[1] < 0.2 * gaps[0]


def test_without_data_no_bias_is_corrected():
    made = plan(context(train=None), settings(scheme="int8_weight", bias_correction=True))
    assert made.edits and not made.weights


def test_ranges_of_the_moment_are_for_linear_layers_and_need_no_data():
    made = plan(context(train=None), settings(scheme="int8_dynamic"))
    assert layers(made) == ["linear"] and made.must_be_faster
    assert {item.what for item in made.left_alone} == {"stem", "blocks.0.conv1", "blocks.0.conv2"}


def test_the_most_sensitive_layers_are_kept_in_float_with_ranges_of_the_moment_too():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(16, 16), nn.Linear(16, 16), nn.Linear(16, 4)).eval()
    model[1].weight.data[:, 0] = 40.0  # one weight in each row takes the range of all
    inputs = Inputs.of((torch.randn(8, 16),))
    at = Context(capture(model, tuple(inputs)), inputs)
    made = plan(at, settings(scheme="int8_dynamic", keep_float=1))
    assert [item.what for item in made.left_alone] == ["1"] and len(layers(made)) == 2
    assert [e.node for e in made.edits if isinstance(e, QuantizeDynamic)] == layers(made)


def test_four_bits_are_for_linear_layers_with_enough_inputs():
    at = context(pico.net(["residual"], width=32), train=None)
    made = plan(at, settings(scheme="int4_weight", group=16))
    assert made.edits[-1] == QuantizeWeight("linear", 16) and len(layers(made)) == 1
    assert not made.must_be_faster
    few = plan(context(train=None), settings(scheme="int4_weight"))
    assert not few.edits and "groups of 16" in few.left_alone[-1].reason


def correlated():
    """A net in 4 bits whose inputs move together, as neighbors in an image do, and data for it."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 32, bias=False), nn.ReLU(), nn.Linear(32, 5)
    ).eval()
    few, x = torch.randn(8, 64), torch.randn(512, 8)
    data = [(x @ few + 0.1 * torch.randn(512, 64), None)]
    inputs = Inputs.of((data[0][0][:1],))
    return Context(capture(model, tuple(inputs)), inputs, data), data[0][0] + 0.05


@pytest.mark.parametrize("scheme", ["int4_weight", "int8_weight"])
def test_weights_rounded_together_give_outputs_nearer_to_the_original(scheme):
    at, x = correlated()
    errors = []
    for rounding in ("nearest", "adaptive"):
        given = settings(scheme=scheme, rounding=rounding, group=16)
        first, second = (plan(at, given) for _ in range(2))
        assert first.weights.keys() == second.weights.keys()
        assert all(torch.equal(v, second.weights[k]) for k, v in first.weights.items())
        made = first.apply(clone(at.module))
        with torch.no_grad():
            errors.append(float((made(x) - at.module(x)).norm()))
    assert made.get_parameter("0.weight").dtype in (torch.int8, torch.uint8)
    assert errors[1] < 0.5 * errors[0]


def test_convolutions_of_every_kind_are_rounded_together():
    blocks = ["depthwise", "grouped", "residual"]
    data = [(pico.images(64, 3), None)]
    at = context(pico.net(blocks), data)
    x, errors = pico.images(32, 9), []
    for rounding in ("nearest", "adaptive"):
        made = plan(at, settings(scheme="int8_weight", rounding=rounding))
        with torch.no_grad():
            out = made.apply(clone(at.module))(x)
            errors.append(float((out - at.module(x)).norm()))
    assert {f"{layer}.weight" for layer in ("stem", "blocks.0.depth", "blocks.1.mix", "head")} < {
        *made.weights
    }
    assert errors[1] < 0.6 * errors[0]


def test_without_data_weights_go_to_their_nearest_and_it_says_so():
    made = plan(context(train=None), settings(scheme="int8_weight", rounding="adaptive"))
    assert made.edits and not made.weights
    assert made.left_alone[-1].what == "rounding"
