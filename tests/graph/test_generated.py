"""Nets that nobody wrote: random legal pruning equals ignoring the dropped units."""

from __future__ import annotations

import os
import random
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, seed, settings
from masked import ignoring, pruned
from modelspeed.graph.analysis.groups import analyze
from modelspeed.graph.analysis.rules.table import RULES, aten
from modelspeed.graph.capture import capture
from nets import OPERATORS, Generated, programs

FUZZ = int(os.environ.get("MODELSPEED_FUZZ", "0"))
SETTINGS = settings(
    max_examples=FUZZ or 150,
    derandomize=not FUZZ,
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
)


def images(rows):
    return torch.linspace(-9, 9, rows * 48, dtype=torch.float64).reshape(rows, 3, 4, 4).sin()


def analyzed(program):
    torch.manual_seed(0)
    module = capture(Generated(program), (images(2),))
    return module, analyze(module)


def check(program):
    """Pruning at random keeps shapes and equals the masked net, at another batch size too."""
    module, analysis = analyzed(program)
    grouped = {m.param for g in analysis.groups for m in g.members}
    assert {n for n, p in module.named_parameters() if p.dim()} <= grouped
    rng = random.Random(len(program))
    dropped = {
        g.name: sorted(rng.sample(range(g.size), rng.randint(1, g.size - 1)))
        for g in analysis.prunable
    }
    smaller, masked = pruned(module, analysis, dropped), ignoring(module, analysis, dropped)
    for rows in (1, 3):
        with torch.no_grad():
            got, want = smaller(images(rows)), masked(images(rows))
        torch.testing.assert_close(got, want, rtol=1e-6, atol=1e-8)
    return analysis


@SETTINGS
@given(programs())
def test_pruning_equals_ignoring_the_dropped_units(program):
    check(program)


@pytest.mark.long
def test_all_operators_are_drawn_and_most_nets_can_be_pruned():
    seen, prunable = Counter(), []

    @seed(0)  # derandomized, a change of a name here would draw other nets
    @settings(SETTINGS, max_examples=1500, derandomize=False)
    @given(programs())
    def sample(program):
        seen.update(name for name, _, _ in program)
        if len(prunable) < 100:
            prunable.append(bool(analyzed(program)[1].prunable))

    sample()
    assert set(seen) == set(OPERATORS)
    assert sum(prunable) > 0.6 * len(prunable)


def swapped_cat(walk, node):
    dims = RIGHT[aten.cat.default](walk, node)
    return tuple(d if d is None else np.flip(d) for d in dims)


def untied(walk, node):
    return walk.of(node.args[0])


RIGHT = dict(RULES)
PLANTED = {
    "cat in the wrong order": (
        aten.cat.default, swapped_cat,
        [("conv", 0, 3), ("point", 1, 1), ("cat", 1, 2), ("conv", 3, 1)],
    ),
    "a batch norm that follows nothing": (
        aten.batch_norm.default, untied, [("conv", 0, 3), ("batch_norm", 1, 0)],
    ),
    "a layer norm that freezes nothing": (
        aten.layer_norm.default, untied, [("conv", 0, 3), ("mlp", 1, 1)],
    ),
    "a glu that ties no gate": (
        aten.glu.default,
        lambda walk, node: tuple(
            d if d is None else d[: len(d) // 2] for d in walk.of(node.args[0])
        ),
        [("conv", 0, 4), ("glu", 1, 0)],
    ),
}  # fmt: skip


@pytest.mark.parametrize("bug", sorted(PLANTED))
def test_a_planted_bug_is_found(bug, monkeypatch):
    target, wrong, program = PLANTED[bug]
    check(program)
    monkeypatch.setitem(RULES, target, wrong)
    with pytest.raises((AssertionError, RuntimeError)):
        check(program)
