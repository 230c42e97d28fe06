"""Blocks in the search: what may go, what it saves, and that the plan fits the graph it meets."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from modelspeed.adjusters.plan import Context
from modelspeed.adjusters.prune import Pruner
from modelspeed.configs.order import check_order
from modelspeed.configs.recipe import Recipe, make_step
from modelspeed.core.errors import ConfigError
from modelspeed.core.model_io import Inputs
from modelspeed.graph.capture import capture, clone
from modelspeed.graph.edits.apply import apply
from modelspeed.search.decision import Decision
from modelspeed.search.droppable_blocks import DroppableBlocks
from modelspeed.search.latency_tables import LatencyTables, Store
from modelspeed.search.problem import ProblemBuilder
from torch import nn

OPEN, PRUNE = make_step("drop_blocks"), make_step("prune", max_ratio=0.9, round_to=1)
DATA = [(torch.randn(16, 8, generator=torch.Generator().manual_seed(s)), None) for s in range(2)]


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.up, self.down = nn.Linear(8, 16), nn.Linear(16, 8)

    def forward(self, x):
        return x + self.down(torch.relu(self.up(x)))


class Nested(nn.Module):
    """A block of which a block is a part."""

    def __init__(self):
        super().__init__()
        self.inner, self.out = Block(), nn.Linear(8, 8)

    def forward(self, x):
        return x + self.out(self.inner(x))


def stack(*blocks):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 8), *(b() for b in blocks), nn.Linear(8, 3))


def context(model):
    inputs = Inputs((torch.randn(1, 8),))
    return Context(capture(model, inputs), inputs, DATA)


def depth(given, **settings):
    groups = given.analysis.prunable
    return DroppableBlocks.of(given, groups, make_step("drop_blocks", **settings).settings)


def test_without_an_open_step_no_block_may_go():
    given = context(stack(Block, Block))
    assert DroppableBlocks.of(given, given.analysis.prunable, None) == DroppableBlocks()
    assert depth(given, skip=("*",)).blocks == ()


def test_without_data_no_block_goes_and_it_is_said_why():
    given = replace(context(stack(Block)), train=None)
    assert depth(given).blocks == () and "training data" in depth(given).reason


def test_a_block_knows_the_groups_that_live_in_it_alone():
    droppable = depth(context(stack(Block, Block, Block)), max_share=0.7)
    assert [d.inner for d in droppable.blocks] == [("1.up",), ("2.up",), ("3.up",)]
    assert droppable.most == 2 and all(d.loss > 0 for d in droppable.blocks)
    assert all(d.block.total in d.nodes and d.block.skip not in d.nodes for d in droppable.blocks)


def test_of_nested_blocks_the_innermost_counts():
    assert [d.block.name for d in depth(context(stack(Nested))).blocks] == ["1.inner"]


def test_a_block_that_is_left_out_takes_no_time(tmp_path, monkeypatch):
    monkeypatch.setenv("MODELSPEED_CACHE", str(tmp_path))
    monkeypatch.setattr(LatencyTables, "_time", lambda self, shape, point: 1.0 + 0.01 * sum(point))
    given = context(stack(Block, Block))
    pruner = Pruner.of(given, PRUNE.settings)
    tables = LatencyTables.of("plain", "cpu", Store.of("f", "plain"))
    widths = ProblemBuilder(given.module, given.inputs, pruner, tables, depth(given))
    widths.measure(lambda n: None)
    problem = widths.problem()
    whole = problem.whole()
    saved = problem.ms(whole) - problem.ms(whole | {"1.up": 0})
    # Its two layers, and whatever its relu and sum were measured to take.
    assert 2 * (1.0 + 0.01 * 24) <= saved < 2 * (1.0 + 0.01 * 24) + 0.5
    assert problem.choices["1.up"].options[0] == 0 and problem.blocks == (("1.up",), ("2.up",))
    assert problem.loss(whole) == 0 and problem.loss(whole | {"1.up": 0}) > 0


@pytest.mark.parametrize("gone", [(0,), (1,), (0, 1), (0, 1, 2)])
def test_what_was_chosen_fits_the_shortened_graph(gone):
    given = context(stack(Block, Block, Block))
    blocks = depth(given).blocks
    dropped = {g: [1, 4] for g in given.analysis.prunable}
    chosen = Decision(dropped, tuple(blocks[i].block for i in gone))
    module = clone(given.module)
    for step in (OPEN, PRUNE):
        plan = chosen.plan(step, Context(module, given.inputs, DATA))
        assert plan is not None
        apply(module, plan.edits)
    left = {n: tuple(p.shape) for n, p in module.named_parameters()}
    stay = [i for i in range(3) if i not in gone]
    assert {n for n in left if ".up.weight" in n} == {f"{i + 1}.up.weight" for i in stay}
    assert left["0.weight"] == (6, 8) and all(left[f"{i + 1}.up.weight"] == (14, 6) for i in stay)
    assert module(torch.randn(3, 8)).shape == (3, 3)


class Half(nn.Module):
    """Its branch reads one half of the channels, so that they are two groups while it is there."""

    def __init__(self):
        super().__init__()
        self.up, self.down = nn.Linear(4, 16), nn.Linear(16, 8)

    def forward(self, x):
        return x + self.down(torch.relu(self.up(x[:, :4])))


def test_groups_that_are_one_without_the_block_lose_the_units_of_both():
    given = context(stack(Half))
    ends = [g for g in given.analysis.prunable if any(m.param == "0.weight" for m in g.members)]
    assert [g.size for g in ends] == [4, 4]
    (block,) = depth(given).blocks
    chosen = Decision({g: [0] for g in ends}, (block.block,))
    module = clone(given.module)
    for step in (OPEN, PRUNE):
        apply(module, chosen.plan(step, Context(module, given.inputs, DATA)).edits)
    assert module.get_parameter("0.weight").shape == (6, 8)
    assert module(torch.randn(3, 8)).shape == (3, 3)


def test_two_open_steps_are_refused():
    with pytest.raises(ConfigError, match="second `drop_blocks`"):
        check_order(Recipe(adjust=(OPEN, PRUNE, OPEN)), "tune")


def test_steps_that_leave_nothing_open_are_planned_by_their_adjuster():
    given = context(stack(Block))
    assert Decision({}).plan(make_step("drop_blocks", count=1), given) is None
    assert Decision({}).plan(make_step("fold_batchnorm"), given) is None
    assert Decision({}, (), "so").plan(OPEN, given).left_alone[0].reason == "so"


def test_apply_wants_to_know_how_many_blocks():
    with pytest.raises(ConfigError, match=r"drop_blocks\.count"):
        check_order(Recipe(adjust=(OPEN,)), "apply")
    check_order(Recipe(adjust=(make_step("drop_blocks", count=1),)), "apply")
    check_order(Recipe(adjust=(OPEN,)), "tune")
