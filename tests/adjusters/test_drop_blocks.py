from __future__ import annotations

import pico
import pytest
import torch
import zoo
from modelspeed.adjusters.drop_blocks import influence, plan
from modelspeed.adjusters.plan import Context
from modelspeed.configs.recipe import make_step
from modelspeed.core.errors import EditError
from modelspeed.core.model_io import Inputs
from modelspeed.graph.blocks import residual_blocks
from modelspeed.graph.capture import capture, clone, export_program, module_of
from modelspeed.graph.edits.apply import DropBlock, apply, edits_from_json, edits_to_json, leave_out
from torch import nn

IMAGES = pico.images()


def context():
    module = capture(pico.net(["residual", "residual", "residual"]), (IMAGES,))
    return Context(module, Inputs((IMAGES,)))


def settings(**given):
    return make_step("drop_blocks", **given).settings


def test_a_projected_shortcut_is_no_block_and_is_reported():
    entry = zoo.ZOO["Bottleneck"]
    module = capture(entry.model(), entry.inputs)
    assert residual_blocks(module) == ()
    reasons = [
        item.reason for item in plan(Context(module, Inputs(entry.inputs)), settings()).left_alone
    ]
    assert any("both sides" in reason for reason in reasons)


def test_blocks_bear_the_users_names():
    assert [b.name for b in residual_blocks(context().module)] == [
        "blocks.0",
        "blocks.1",
        "blocks.2",
    ]


def test_a_transformer_has_a_block_for_attention_and_one_for_neurons():
    entry = zoo.ZOO["Vit"]
    found = residual_blocks(capture(entry.model(), entry.inputs))
    assert len(found) == 2
    assert {"block.qkv.weight", "block.n1.weight"} <= set(found[0].params)
    assert {"block.up.weight", "block.n2.weight"} <= set(found[1].params)


def test_the_block_that_changes_least_goes_first_and_takes_its_parameters_along():
    at = context()
    for name in ("weight", "bias"):
        at.module.get_parameter(f"blocks.1.conv2.{name}").data.mul_(1e-3)
    scores = influence(at, list(residual_blocks(at.module)))
    made = plan(at, settings(count=1))
    assert made.edits[0].node == min(scores, key=scores.get)
    smaller = apply(clone(at.module), made.edits)
    assert not [n for n, _ in smaller.named_parameters() if n.startswith("blocks.1.")]
    torch.testing.assert_close(smaller(IMAGES), at.module(IMAGES), rtol=0.05, atol=0.01)


def test_dropping_equals_a_branch_of_zeros_also_after_a_round_trip():
    at = context()
    zeroed = clone(at.module)
    for name in ("weight", "bias"):
        zeroed.get_parameter(f"blocks.0.conv2.{name}").data.zero_()
    block = residual_blocks(at.module)[0]
    edits = edits_from_json(edits_to_json([DropBlock(block.total, block.skip)]))
    smaller = module_of(export_program(apply(clone(at.module), edits), (IMAGES,)))
    torch.testing.assert_close(smaller(IMAGES), zeroed(IMAGES), rtol=1e-4, atol=1e-5)


def test_an_activation_that_the_value_has_been_through_goes_with_the_block():
    module = context().module  # blocks end in a sum and a relu that works in place
    shorter = apply(clone(module), leave_out(residual_blocks(module)[1:]))
    relus = [n for n in shorter.graph.nodes if "relu" in n.name]
    assert len(relus) == 3 and not any("relu" in u.name for n in relus for u in n.users)


def test_of_nested_blocks_the_inner_ones_go_and_neighbors_go_together():
    class Inner(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(4, 4)

        def forward(self, x):
            return x + torch.relu(self.layer(x))

    class Outer(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = nn.Sequential(Inner(), Inner(), nn.Linear(4, 4))

        def forward(self, x):
            return x + self.body(x)

    net = nn.Sequential(nn.Linear(4, 4), Outer(), nn.Linear(4, 2)).eval()
    x = torch.randn(3, 4)
    module = capture(net, (x,))
    found = plan(Context(module, Inputs.of(x)), make_step("drop_blocks", count=2).settings)
    shorter = apply(clone(module), found.edits)
    assert {n for n, _ in shorter.named_parameters() if "layer" in n} == set()
    assert shorter(x).shape == (3, 2)


def test_skipped_blocks_stay_and_say_so():
    made = plan(context(), settings(count=3, skip=("blocks.0", "blocks.2")))
    assert len(made.edits) == 1
    assert {item.what for item in made.left_alone} >= {"blocks.0", "blocks.2"}


def test_a_node_that_is_no_input_of_the_sum_is_refused():
    module = context().module
    block = residual_blocks(module)[0]
    with pytest.raises(EditError, match="is not an input of"):
        apply(module, [DropBlock(block.total, block.total)])
