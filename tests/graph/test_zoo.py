"""Small topologies, one idea each: what is pruned, and that pruning equals ignoring the units."""

from __future__ import annotations

import copy
import random

import pytest
import torch
import zoo
from modelspeed.graph.capture import capture, tensor_at
from modelspeed.graph.edits import apply
from modelspeed.graph.groups import analyse, keep_units


def ignoring(module, analysis, dropped):
    """The unpruned graph with everything that belongs to the dropped units set to zero."""
    made = copy.deepcopy(module)
    for group in analysis.prunable:
        for member in group.members:
            gone = [i for u in dropped.get(group.name, ()) for i in member.indices[u]]
            index = torch.tensor(gone, dtype=torch.long)
            tensor_at(made, member.param).data.index_fill_(member.dim, index, 0)
    return made


def dropped_of(analysis, seed):
    rng = random.Random(seed)
    return {
        g.name: sorted(rng.sample(range(g.size), rng.randint(1, g.size - 1)))
        for g in analysis.prunable
        if rng.random() < 0.7
    } or {analysis.prunable[0].name: [0]}


@pytest.mark.parametrize("name", sorted(zoo.ZOO))
def test_pruning_equals_ignoring_the_dropped_units(name):
    torch.manual_seed(0)
    entry = zoo.ZOO[name]
    module = capture(entry.build(), entry.inputs)
    analysis = analyse(module)
    groups = {g.name: g.size for g in analysis.prunable}
    for group, size in entry.expect.items():
        assert groups.get(group) == size, groups
    if entry.exactly:
        assert groups == entry.expect
    params = {n for n, _ in module.named_parameters(remove_duplicate=True)}
    grouped = {m.param for g in analysis.groups for m in g.members}
    assert params <= grouped
    assert all(g.frozen for g in analysis.groups if g not in analysis.prunable and g.size > 1)
    for seed in range(4):
        if not analysis.prunable:
            break
        dropped = dropped_of(analysis, seed)
        pruned = apply(copy.deepcopy(module), keep_units(analysis, dropped))
        for rows in (1, 3):
            inputs = tuple(torch.cat([x[:1]] * rows) for x in entry.inputs)
            got = pruned(*inputs)
            want = ignoring(module, analysis, dropped)(*inputs)
            torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-5)
