"""A graph that was pruned can be analyzed and pruned again."""

from __future__ import annotations

import pytest
import torch
from masked import pruned
from modelspeed.graph.analysis.groups import analyze
from modelspeed.graph.capture import capture, has_dynamic_batch
from zoo import ZOO


@pytest.mark.parametrize("name", ["Residual", "Llama", "Swin", "Shuffle", "Vit", "UNet"])
def test_pruning_in_two_rounds_equals_pruning_at_once(name):
    entry = ZOO[name]
    module = capture(entry.model(), entry.inputs)
    analysis = analyze(module)
    chosen = {g.name: [0, 1] for g in analysis.prunable if g.size > 3}
    at_once = pruned(module, analysis, chosen)
    first = pruned(module, analysis, {n: [0] for n in chosen})
    again = analyze(first)
    sizes = {g.name: g.size for g in analysis.prunable}
    assert {g.name: g.size for g in again.prunable} == {
        n: s - (n in chosen) for n, s in sizes.items()
    }
    second = pruned(first, again, {n: [0] for n in chosen})
    assert has_dynamic_batch(second) == has_dynamic_batch(module)
    for a, b in zip(at_once.state_dict().values(), second.state_dict().values(), strict=True):
        assert torch.equal(a, b)
