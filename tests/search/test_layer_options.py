"""Layers in integers: what it is found to cost, and that just the chosen ones are."""

from __future__ import annotations

import itertools
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from fake_lab import GraphLab
from modelspeed.adjusters import low_rank
from modelspeed.adjusters.methods.moments import TEMPERATURE, rise
from modelspeed.adjusters.plan import Context
from modelspeed.adjusters.prune import Pruner
from modelspeed.adjusters.registry import ADJUSTERS
from modelspeed.backends.lowered import PACKED
from modelspeed.backends.registry import furthest_lowering, lowered
from modelspeed.configs.load import parse_recipe
from modelspeed.configs.recipe import make_step
from modelspeed.core.model_io import Inputs
from modelspeed.graph.capture import capture, clone
from modelspeed.graph.edits.apply import Factor, QuantizeWeight
from modelspeed.graph.layers import layers_of
from modelspeed.graph.lowering.int8 import runs_here
from modelspeed.profiling.layers import node_times
from modelspeed.search import layer_options as ways_of_layers
from modelspeed.search.decision import KEPT, Decision, StepDecision
from modelspeed.search.droppable_blocks import DroppableBlock, DroppableBlocks
from modelspeed.search.knapsack import Choice, Problem, Term
from modelspeed.search.latency_tables import LatencyTables, Store
from modelspeed.search.layer_options import AS_IT_IS, LayerOption, LayerOptions, choice_of
from modelspeed.search.problem import ProblemBuilder
from modelspeed.search.space import SearchSpace
from torch import nn

RECIPE = "{version: 1, adjust: [prune, {quantize: {skip: ['4']}}]}"
INT8 = 1


def net():
    """Layers 0 and 2 alike, but for one input channel of layer 2 that is a hundred times larger."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Conv2d(16, 16, 3), nn.ReLU(), nn.Conv2d(16, 4, 3),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(),
    )  # fmt: skip
    with torch.no_grad():
        model[0].weight[5] *= 100
        model[0].bias.zero_()
    return model.eval()


@pytest.fixture
def lab(tmp_path):
    generator = torch.Generator().manual_seed(0)
    data = [(torch.randn(32, 3, 12, 12, generator=generator), torch.zeros(32)) for _ in range(2)]
    inputs = Inputs((torch.randn(1, 3, 12, 12, generator=generator),))
    module = capture(net(), tuple(inputs))
    return GraphLab(
        parse_recipe(RECIPE, "recipe", tmp_path), {}, {}, module=module, inputs=inputs, train=data,
        packed=furthest_lowering(module, inputs) or "plain",
    )  # fmt: skip


def test_rise_is_the_second_order_change_of_the_loss():
    generator = torch.Generator().manual_seed(0)
    outputs, gap = (torch.randn(2, 5, generator=generator).double() for _ in range(2))
    likely = (outputs / TEMPERATURE).softmax(1)
    curvature = torch.diag_embed(likely) - likely[:, :, None] * likely[:, None]
    wanted = 0.5 * (gap[:, None] @ curvature @ gap[:, :, None]).mean()
    assert rise(outputs, outputs + gap, torch.zeros(2)[:0].long()) == pytest.approx(float(wanted))
    real = rise(outputs, outputs + gap, torch.zeros(2, 5))
    assert real == pytest.approx(0.5 * float(gap.square().mean()))


def test_kernels_go_by_the_names_of_their_layers(lab):
    runtimes = [r for r in PACKED if furthest_lowering(lab.module, lab.inputs)]
    for runtime in ("plain", *runtimes):
        times = node_times(lowered(lab.module, lab.inputs, runtime), lab.inputs, repeats=1)
        assert {"conv2d", "conv2d_1", "conv2d_2"} <= set(times), runtime


def test_a_layer_that_rounds_badly_is_found_out_by_its_outputs(lab, monkeypatch):
    # Integers take half the time of every layer, whatever the machine says.
    took = iter((2.0, 1.0))
    monkeypatch.setattr(
        ways_of_layers,
        "runtime_node_times",
        lambda *_: dict.fromkeys(("conv2d", "conv2d_1", "conv2d_2"), next(took)),
    )
    measured = LayerOptions.measured(lab, lab.context(lab.module))
    assert set(measured.of) == {"conv2d", "conv2d_1"}  # `skip` keeps the last one
    for options in measured.of.values():
        assert options[-1] == AS_IT_IS and options[0].step == INT8 and options[0].share == 0.5
    assert measured.of["conv2d_1"][0].loss > 2 * measured.of["conv2d"][0].loss > 0


def test_just_the_chosen_layers_run_in_integers_and_the_report_says_why_the_others_do_not(lab):
    step = lab.recipe.adjust[INT8]
    chosen = Decision({}, open=(step,), taken=(StepDecision(step, frozenset({"conv2d"})),))
    plan = chosen.plan(step, lab.context(lab.module))
    assert [e.node for e in plan.edits if isinstance(e, QuantizeWeight)] == ["conv2d"]
    reasons = {row.what: row.reason for row in plan.left_alone}
    assert reasons["2"] == KEPT and "`skip`" in reasons["4"]


def test_a_way_takes_its_share_of_a_layers_time_at_every_width(lab, tmp_path, monkeypatch):
    monkeypatch.setenv("MODELSPEED_CACHE", str(tmp_path))
    monkeypatch.setattr(LatencyTables, "_time", lambda self, shape, point: 1.0 + 0.01 * sum(point))
    context = lab.context(lab.module)
    settings = make_step("prune", max_ratio=0.9, round_to=4).settings
    options = LayerOptions({"conv2d_1": (LayerOption(INT8, 0.25, 0.1), AS_IT_IS)})
    tables = LatencyTables.of("plain", "cpu", Store.of("f", "plain"))
    widths = ProblemBuilder(
        lab.module, lab.inputs, Pruner.of(context, settings), tables, layer_options=options
    )
    widths.measure(lambda n: None)
    problem = widths.problem()
    name = choice_of("conv2d_1")
    for picks in (problem.whole(), {n: 0 for n in problem.choices}):
        at = {g: problem.choices[g].options[picks[g]] for g in ("0", "2")}
        layer = 1.0 + 0.01 * (at["0"] + at["2"])
        saved = problem.ms(picks | {name: 1}) - problem.ms(picks | {name: 0})
        assert saved == pytest.approx(0.75 * layer)
    assert problem.loss(problem.whole() | {name: 0}) == pytest.approx(0.1)


def test_what_was_measured_is_that_of_this_machines_kernels(lab):
    if not runs_here(lab.module) or furthest_lowering(lab.module, lab.inputs) is None:
        pytest.skip("no integer kernels here")
    lab.runtime = furthest_lowering(lab.module, lab.inputs)
    for options in LayerOptions.measured(lab, lab.context(lab.module)).of.values():
        assert all(0 < option.share < 1 for option in options[:-1])


def test_a_layer_is_split_where_its_outputs_vary_in_few_directions(lab, tmp_path, monkeypatch):
    """Of two layers alike in size, one has rank 4. Splits take half the time, by what they say."""
    monkeypatch.setattr(low_rank, "undisturbed_ms", lambda runs, _: [2.0, *[1.0] * (len(runs) - 1)])
    took = itertools.chain((4.0,), itertools.repeat(1.0))
    monkeypatch.setattr(
        ways_of_layers, "runtime_node_times",
        lambda module, *_, ms=took: dict.fromkeys((n.name for n in module.graph.nodes), next(ms)),
    )  # fmt: skip
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(1024, 1024), nn.ReLU(), nn.Linear(1024, 1024)).eval()
    with torch.no_grad():
        model[0].weight.copy_(torch.randn(1024, 4) @ torch.randn(4, 1024) / 64)
        model[0].bias.zero_()
    x = torch.randn(64, 1024)
    inputs, data = Inputs((x,)), [(x, torch.zeros(64)) for _ in range(2)]
    lab.inputs, lab.train, lab.packed = inputs, data, "plain"
    lab.module = capture(model, (x,))
    lab.recipe = parse_recipe(
        "{version: 1, adjust: [prune, {low_rank: {max_error: 0.01}}]}", "recipe", tmp_path
    )
    (way, end) = LayerOptions.measured(lab, lab.context(lab.module)).of["linear"]
    assert end == AS_IT_IS and way.step == 1 and 4 <= way.rank <= 32
    assert way.share == 0.5 and way.loss < 1e-6
    step = lab.recipe.adjust[1]
    taken = StepDecision(step, frozenset({"linear"}), rank=4)
    plan = Decision({}, open=(step,), taken=(taken,)).plan(step, lab.context(lab.module))
    assert plan.edits == (Factor("linear", 4),)
    assert {row.what: row.reason for row in plan.left_alone} == {"2": KEPT}
    split = plan.apply(clone(lab.module))
    torch.testing.assert_close(split(x), lab.module(x), rtol=1e-3, atol=1e-3)


def test_losses_are_of_the_same_examples_where_a_loader_shuffles(lab, monkeypatch):
    """The fewer examples of a slow model are those of the first pass."""
    generator = torch.Generator().manual_seed(1)

    class Shuffled:
        def __iter__(self):
            return iter([(torch.randn(32, 3, 12, 12, generator=generator), torch.zeros(32))])

    lab.train = Shuffled()
    names = ("conv2d", "conv2d_1", "conv2d_2")
    took = iter((2.0, 1.0))
    monkeypatch.setattr(
        ways_of_layers, "runtime_node_times", lambda *_: dict.fromkeys(names, next(took))
    )
    monkeypatch.setattr(ways_of_layers, "SECONDS", 1e-6)
    measured = LayerOptions.measured(lab, lab.context(lab.module)).of
    assert all(options[0].loss < 1e-3 for options in measured.values()) and len(measured) == 2


class Attention(nn.Module):
    """Of its two layers one stands under another name than the module's own weight."""

    def __init__(self):
        super().__init__()
        self.attention = nn.MultiheadAttention(512, 4, batch_first=True)

    def forward(self, x):
        return self.attention(x, x, x, need_weights=False)[0]


def test_of_a_plan_each_layer_gets_what_is_its_own():
    torch.manual_seed(0)
    x = torch.randn(4, 16, 512)
    module = capture(Attention().eval(), (x,))
    with torch.no_grad():
        for name in ("attention.in_proj_weight", "attention.out_proj.weight"):
            weight = module.get_parameter(name)
            weight.copy_(torch.randn(len(weight), 4) @ torch.randn(4, 512) / 64)
    context = Context(module, Inputs((x,)), [(x, torch.zeros(4))])
    plan = ADJUSTERS["low_rank"].plan(context, make_step("low_rank", rank=4).settings)
    edited = {edit.node for edit in plan.edits}
    layers = [layer for layer in layers_of(module) if layer.node.name in edited]
    assert [layer.name for layer in layers] == [
        "attention.in_proj_weight", "attention.out_proj",
    ]  # fmt: skip
    for layer in layers:
        changed = plan.apply_to_layer(layer, clone(module))
        torch.testing.assert_close(changed(x), module(x), rtol=1e-3, atol=1e-4)


def test_layers_of_a_block_that_is_left_out_run_no_other_way(lab):
    choices = {"a": Choice((0, 8), (0.1, 0.0)), choice_of("conv2d_1"): Choice((0, 1), (0.5, 0.0))}
    options = LayerOptions({"conv2d_1": (LayerOption(INT8, 0.5, 0.5), AS_IT_IS)})
    block = DroppableBlock(SimpleNamespace(), ("a",), ("conv2d_1",), 0.1)
    term = Term(("a", choice_of("conv2d_1")), np.array([[0.0, 0.0], [1.0, 2.0]]))
    problem = Problem(choices, [term], 0.0, (("a",),), 1)
    ground = SearchSpace(None, DroppableBlocks((block,), 1), problem, options)
    assert problem.fastest() == {"a": 0, choice_of("conv2d_1"): 1}
    gone = {"a": 0, choice_of("conv2d_1"): 0}
    assert ground.settled(gone) == problem.fastest()
    assert ground.formats(lab.recipe, gone, -1) == ((), "float32")


def test_a_split_saves_less_of_a_narrower_layer():
    way = LayerOption(1, 0.5, 0.0, rank=8)
    assert way.at(1, (64, 64), 64, 64) == 0.5
    assert way.at(1, (64, 64), 32, 32) == pytest.approx(1.0)
    assert way.at(1, (64, 64), 16, 16) == 1.0 and AS_IT_IS.at(9, (64, 64), 8, 8) == 1.0
