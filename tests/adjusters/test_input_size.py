"""The model at another input size: what can't follow stays, the rest computes what it did there."""

from __future__ import annotations

import pico
import pytest
import torch
from modelspeed.adjusters import input_size
from modelspeed.adjusters.plan import Context
from modelspeed.adjusters.prune import seen_by
from modelspeed.configs.recipe import make_step
from modelspeed.core.errors import EditError
from modelspeed.core.model_io import Inputs
from modelspeed.graph.analysis.groups import keep_units
from modelspeed.graph.capture import capture, clone, export_program, module_of
from modelspeed.graph.edits.apply import Cast, Resize, apply, edits_from_json, edits_to_json
from modelspeed.graph.edits.replay import replayed
from modelspeed.graph.edits.resizing import smaller
from modelspeed.graph.lowering.lower import lowerings
from modelspeed.graph.source.text import source_of
from sources import assert_same
from torch import nn

ONE = Inputs.of(pico.images(1))


def planned(model, inputs=ONE, known=True, **given):
    module = capture(model, inputs)
    context = Context(module, inputs, model=model if known else None)
    return module, input_size.plan(context, make_step("input_size", **given).settings)


def reason(model, inputs=ONE, **given):
    plan = planned(model, inputs, **given)[1]
    assert plan.edits == ()
    return plan.left_alone[0].reason


class Tokens(nn.Module):
    """Positions, views and a mask with the length written into them once captured."""

    def __init__(self):
        super().__init__()
        self.embed, self.place = nn.Embedding(20, 8), nn.Embedding(16, 8)
        self.register_buffer("ids", torch.arange(16))
        self.mix, self.head = nn.Linear(8, 8), nn.Linear(8, 3)

    def forward(self, ids, mask):
        x = self.embed(ids) + self.place(self.ids[: ids.shape[1]])
        heads = self.mix(x).view(x.shape[0], x.shape[1], 2, 4).transpose(1, 2)
        seen = (heads @ heads.transpose(2, 3)).masked_fill(mask[:, None, None] == 0, -1e9)
        x = (seen.softmax(-1) @ heads).transpose(1, 2).reshape(x.shape[0], x.shape[1], 8)
        return self.head(x.mean(1))


def tokens():
    g = torch.Generator().manual_seed(0)
    ids = torch.randint(0, 20, (2, 16), generator=g)
    return Inputs((), {"ids": ids, "mask": (ids > 3).long()})


def test_what_is_made_for_one_size_stays_and_the_layer_is_named():
    fixed = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(200, 3))
    assert "it can't run at 9x9: `2` (Linear) fails: mat1 and mat2" in reason(fixed, size=9)
    assert "`2` fails: mat1 and mat2" in reason(module_of(export_program(fixed, ONE)), size=9)
    assert ", 1, 10, 10] would become [" in reason(nn.Conv2d(1, 1, 3), size=9)
    assert "no input is" in reason(nn.Linear(4, 2), Inputs.of(torch.randn(1, 4)), size=2)
    assert "13x13 is not smaller than its input, 12x12" in reason(pico.net([]), size=13)


def test_a_model_that_takes_another_way_at_another_size_stays():
    class Odd(nn.Module):
        def forward(self, x):
            return x.mean((2, 3)) if x.shape[2] > 10 else x.amax((2, 3))

    assert "computes something else" in reason(Odd(), size=9)


class Counted(nn.Module):
    """`number` of the size is written into its graph and at any size something runs."""

    def __init__(self, number):
        super().__init__()
        self.number, self.conv = number, nn.Conv2d(1, 4, 3, padding=1)

    def forward(self, x):
        return self.conv(x).sum((2, 3)) / self.number(*x.shape[2:])


@pytest.mark.parametrize(
    ("number", "held"), [(lambda h, w: h * w, 144), (lambda h, w: w, 12), (lambda h, w: h // 2, 6)]
)
def test_without_the_class_numbers_that_the_size_may_have_set_are_left_alone(number, held):
    model = Counted(number).eval()
    assert f"its graph holds {held} (`div" in reason(model, known=False, size=9)
    module, plan = planned(model, size=9)
    wanted = model(smaller(pico.images(), (9, 9)))
    torch.testing.assert_close(plan.apply(clone(module))(pico.images()), wanted)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_images_in_half_precision_are_resized_in_float32(dtype):
    model, x = pico.net([]).to(dtype), pico.images(2).to(dtype)
    module, plan = planned(model, Inputs.of(x), size=9)
    made = plan.apply(clone(module))
    wanted = model(smaller(x.float(), (9, 9)).to(dtype))
    assert made(x).dtype == dtype
    torch.testing.assert_close(made(x), wanted)
    assert_same(capture(made, Inputs.of(x)), Inputs.of(x))


@pytest.mark.parametrize("known", [True, False])
def test_a_net_with_pooling_takes_what_it_took_and_runs_smaller(known):
    model = pico.net(["residual", "squeeze_excite"])
    module, plan = planned(model, known=known, ratio=0.75)
    made = apply(clone(module), edits_from_json(edits_to_json(plan.edits)))
    x = pico.images(5)
    with torch.inference_mode():
        wanted = model(nn.functional.interpolate(x, (9, 9), mode="bilinear", antialias=True))
        torch.testing.assert_close(made(x), wanted, rtol=1e-4, atol=1e-5)
        again = module_of(export_program(clone(made), ONE))
        for lowered in (again, *(build() for build in lowerings(again, ONE).values())):
            torch.testing.assert_close(lowered(x), wanted, rtol=1e-4, atol=1e-5)
        half = apply(clone(made), [Cast("bfloat16")])
        torch.testing.assert_close(half(x), wanted, rtol=0.1, atol=0.1)


def test_what_comes_after_sees_the_smaller_shapes():
    module, plan = planned(pico.net(["residual"]), size=6)
    made = plan.apply(clone(module))
    shapes = [n.meta["val"].shape[2] for n in made.graph.nodes if "conv2d" in n.name]
    assert shapes == [3, 3, 3]
    context = seen_by(Context(made, ONE), make_step("prune").settings)
    units = {g.name: [0] for g in context.analysis.prunable}
    assert apply(made, keep_units(context.analysis, units))(pico.images()).shape == (2, 3)


def test_a_shorter_sequence_is_what_the_class_computes_of_the_first_tokens():
    model, inputs = Tokens().eval(), tokens()
    module, plan = planned(model, inputs, size=10)
    assert plan.edits[-1] == Resize(("ids", "mask"), (10,)) and len(plan.edits) > 3
    made = plan.apply(clone(module))
    wanted = inputs.map(lambda x: x[:, :10]).call(model)
    torch.testing.assert_close(inputs.call(made), wanted)
    assert reason(model, inputs, size=(10, 10)) == "10x10 is not a length of a sequence"
    # Without the class the numbers that its graph holds can't be told.
    assert "fails" in reason(module, inputs, size=10)


def test_one_number_is_the_shorter_side():
    x = Inputs.of(torch.randn(1, 1, 12, 24))
    assert planned(pico.net([]), x, size=6)[1].edits == (Resize(("x",), (6, 12)),)
    assert planned(pico.net([]), x, size=(6, 18))[1].edits == (Resize(("x",), (6, 18)),)


def test_source_holds_the_resizing_and_a_users_class_is_refused():
    model = pico.net([])
    module, plan = planned(model, size=9)
    made = capture(plan.apply(clone(module)), ONE)
    assert "antialias=True" in source_of(made, "x").text
    assert_same(made, Inputs.of(pico.images(3)))
    with pytest.raises(EditError, match=r"resized to \[9, 9\]"):
        replayed(model, ONE, plan.edits, made.state_dict(), lambda m: True)


def test_edits_that_do_not_fit_are_refused():
    module = capture(nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(200, 3)), ONE)
    with pytest.raises(EditError, match=r"can't run at size \[9, 9\]"):
        apply(clone(module), [Resize(("input_1",), (9, 9))])
    with pytest.raises(EditError, match="not an input of the model"):
        apply(clone(module), [Resize(("conv2d",), (9, 9))])
    assert smaller(pico.images(), (9, 9)).shape == (2, 1, 9, 9)
