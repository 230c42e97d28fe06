"""Writes into views, inputs and buffers: every form of a graph does what the model does."""

from __future__ import annotations

import copy
import random

import pytest
import torch
import writing
from masked import ignoring, pruned
from modelspeed.backends.compiler import refuse_state
from modelspeed.backends.registry import prepare
from modelspeed.core.errors import EditError, MeasureError
from modelspeed.core.model_io import Inputs
from modelspeed.graph.analysis.groups import analyze
from modelspeed.graph.capture import capture, export_program, module_of
from modelspeed.graph.edits.apply import DropBlock, QuantizeInput, QuantizeWeight, apply
from modelspeed.graph.edits.casting import cast
from modelspeed.graph.layers import layers_of
from modelspeed.graph.lowering.lower import lowerings
from modelspeed.graph.mutation import hazards
from modelspeed.graph.state import preserved_state, written_buffers
from modelspeed.graph.train_mode import training
from sources import assert_same
from torch.utils import _pytree as pytree

STATELESS, WITH_STATE = sorted(writing.STATELESS), sorted(writing.WITH_STATE)
NAMES = STATELESS + WITH_STATE
STATE = {"Cache": ("cache",), "Counter": ("n", "k"), "Swap": ("b", "a"),
         "Previous": ("a",), "Rolling": ("a",)}  # fmt: skip


@pytest.fixture(scope="module")
def graph():
    done = {}

    def get(name):
        if name not in done:
            done[name] = capture(writing.made(name), (writing.frames(2),))
        return copy.deepcopy(done[name])

    return get


def assert_follows(module, name, rows, what):
    """Three calls in a row with one and the same input, which stays as it is."""
    model, x = writing.made(name), writing.frames(rows)
    mine, got, wanted = x.clone(), [], []
    with torch.no_grad():
        for _ in range(3):
            wanted.append(pytree.tree_map(torch.clone, model(x.clone())))
            got.append(module(mine))
            torch.testing.assert_close(got[-1], wanted[-1], rtol=1e-4, atol=1e-4, msg=what)
    assert torch.equal(mine, x), what


@pytest.mark.parametrize("name", NAMES)
def test_the_graph_equals_the_model_call_by_call_as_does_what_is_stored_of_it(
    name, graph, tmp_path
):
    module = graph(name)
    assert hazards(module) == []
    torch.export.save(export_program(module, (writing.frames(2),)), tmp_path / "stored.pt2")
    for rows in (1, 3):
        assert_follows(graph(name), name, rows, "captured")
        stored = torch.export.load(tmp_path / "stored.pt2")
        assert_follows(stored.module(), name, rows, "stored")
        assert_follows(module_of(torch.export.load(tmp_path / "stored.pt2")), name, rows, "loaded")


@pytest.mark.parametrize("name", NAMES)
def test_every_runtime_equals_the_model_call_by_call(name, graph):
    inputs = Inputs((writing.frames(2),))
    found = ["plain", *lowerings(graph(name), inputs)]
    assert "folded" in found
    for runtime in found:
        for rows in (1, 3):
            assert_follows(prepare(graph(name), inputs, runtime), name, rows, runtime)


@pytest.mark.parametrize("name", [n for n in NAMES if n not in ("Masked", "Swap", "Previous")])
def test_pruning_equals_ignoring_the_dropped_units(name, graph):
    module = graph(name)
    analysis = analyze(module)
    assert analysis.prunable
    rng = random.Random(0)
    for _ in range(2):
        dropped = {
            g.name: rng.sample(range(g.size), rng.randint(1, g.size - 1)) for g in analysis.prunable
        }
        smaller, masked = pruned(module, analysis, dropped), ignoring(module, analysis, dropped)
        for rows in (1, 3):
            x = writing.frames(rows)
            torch.testing.assert_close(smaller(x), masked(x), rtol=1e-4, atol=1e-4)


def test_a_partial_convolution_becomes_a_concatenation_that_prunes(graph):
    module = graph("PartialConvolution")
    sizes = {g.name: g.size for g in analyze(module).prunable}
    assert sizes == {"stem": 2, "stem#2": 6, "part": 2, "up": 8}
    assert sum(n.target is torch.ops.aten.batch_norm.default for n in module.graph.nodes) == 1


@pytest.mark.parametrize("name", ["PartialConvolution", "PoseDecoding", "Cache", "Counter"])
def test_the_source_of_the_graph_writes_what_the_graph_writes(name, graph):
    source = assert_same(graph(name), Inputs((writing.frames(3),)))
    assert ("copy_(" in source.text) == (name in WITH_STATE)


@pytest.mark.parametrize("name", WITH_STATE)
def test_what_a_call_writes_is_named_and_kept(name, graph):
    module = graph(name)
    assert written_buffers(module) == STATE[name]
    for held in (module, writing.made(name)):
        before = {k: v.clone() for k, v in held.named_buffers()}
        objects = dict(held.named_buffers())
        with torch.no_grad(), preserved_state(held):
            held(writing.frames(2))
            assert any(not torch.equal(v, before[k]) for k, v in held.named_buffers())
        assert all(torch.equal(v, before[k]) for k, v in held.named_buffers())
        assert all(v is objects[k] for k, v in held.named_buffers())


def test_state_is_kept_where_a_call_fails_and_in_lowered_modules(graph):
    inputs = Inputs((writing.frames(2),))
    for runtime in ("plain", *lowerings(graph("Counter"), inputs)):
        module = prepare(graph("Counter"), inputs, runtime)
        with pytest.raises(ZeroDivisionError), torch.inference_mode(), preserved_state(module):
            module(writing.frames(2))
            assert module.n == 1
            raise ZeroDivisionError
        assert module.n == 0


def test_a_net_without_state_writes_nothing(graph):
    assert [written_buffers(graph(n)) for n in STATELESS] == [()] * len(STATELESS)


def test_what_reaches_state_stays_whole_with_a_reason(graph):
    analysis = analyze(graph("Cache"))
    reasons = [
        g.frozen for g in analysis.groups if any(m.param == "stem.weight" for m in g.members)
    ]
    assert any("`cache` keeps it from one call to the next" in (r or "") for r in reasons)


def test_compilers_and_half_precision_refuse_state(graph):
    with pytest.raises(MeasureError, match="each call writes `cache`"):
        refuse_state(graph("Cache"))
    refuse_state(graph("PartialConvolution"))
    with pytest.raises(EditError, match="`cache` is written in each call"):
        cast(graph("Cache"), "bfloat16")


def test_training_leaves_state_alone_and_has_gradients_twice(graph):
    module = graph("Counter")
    with training(module):
        for _ in range(2):
            module(writing.frames(2)).sum().backward()
    assert module.n == 0
    module(writing.frames(2)).sum().backward()
    assert module.n == 1 and not module.n.requires_grad


class MaskedWeights(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.weight_orig = torch.nn.Parameter(torch.randn(4, 6))
        self.register_buffer("weight_mask", (torch.arange(24).reshape(4, 6) % 2).float())

    def forward(self, x):
        mask = self.weight_mask.to(dtype=self.weight_orig.dtype)
        return torch.nn.functional.linear(x, mask * self.weight_orig)


def test_a_check_of_a_constant_does_not_hold_on_to_it():
    model, x = MaskedWeights().eval(), torch.randn(2, 6)
    module = capture(model, (x,))
    assert [n.target for n in module.graph.nodes if "assert" in str(n.target)] == []
    assert list(module.state_dict()) == ["weight_orig"]
    torch.testing.assert_close(module(x), model(x))


class ScaledByState(torch.nn.Module):
    """A weight that is computed from what each call writes is not a constant."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.randn(4, 6))
        self.register_buffer("scale", torch.ones(()))

    def forward(self, x):
        y = torch.nn.functional.linear(x, self.weight * self.scale)
        self.scale.mul_(0.5)
        return y


def test_a_weight_computed_from_state_is_computed_in_each_call():
    model, x = ScaledByState().eval(), torch.randn(2, 6)
    module = capture(copy.deepcopy(model), (x,))
    for made in (module, prepare(copy.deepcopy(module), Inputs((x,)), "onednn")):
        eager = copy.deepcopy(model)
        for _ in range(3):
            torch.testing.assert_close(made(x), eager(x))


class ReadAfterBlock(torch.nn.Module):
    """Without its block, the activation in place would overwrite what is read once more."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = (torch.nn.Conv2d(n, 8, 1) for n in (3, 8, 8))

    def forward(self, x):
        y = self.a(x)
        return self.c(torch.relu_(self.b(y) + y)) + y


def test_leaving_out_a_block_does_not_let_an_activation_overwrite_what_is_read_later():
    model, inputs = ReadAfterBlock().eval(), Inputs((writing.frames(2),))
    module = apply(capture(model, inputs), [DropBlock("add", "conv2d")])
    assert hazards(module) == []
    torch.nn.init.zeros_(model.b.weight)
    torch.nn.init.zeros_(model.b.bias)
    for runtime in ("plain", *lowerings(module, inputs)):
        made = prepare(copy.deepcopy(module), inputs, runtime)
        torch.testing.assert_close(inputs.call(made), inputs.call(model), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["PartialConvolution", "Cache", "Counter", "ReluReadLater"])
def test_integer_kernels_do_what_the_graph_does_call_by_call(name, graph):
    inputs = Inputs((writing.frames(2),))
    module = graph(name)
    for layer in list(layers_of(module)):
        node = layer.node.name
        apply(module, [QuantizeInput(node, 0, 0.02, 60, 127), QuantizeWeight(node)])
    for runtime in lowerings(module, inputs):
        plain, made = copy.deepcopy(module), prepare(copy.deepcopy(module), inputs, runtime)
        with torch.no_grad():
            for _ in range(2):
                torch.testing.assert_close(
                    inputs.call(made), inputs.call(plain), rtol=1e-3, atol=1e-3
                )
