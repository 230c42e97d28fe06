"""Importance speaks of the loss, whatever the outputs and batches look like."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from modelspeed.adjusters.methods.importance import IMPORTANCE, consumers
from modelspeed.adjusters.plan import Context
from modelspeed.graph.capture import capture
from torch import nn


def context(net, batches, shape):
    x = torch.randn(2, *shape)
    return Context(capture(net.eval(), (x,)), (x,), batches)


def rows(count, size, outputs):
    g = torch.Generator().manual_seed(0)
    x = torch.randn(count, 8, generator=g)
    y = torch.randn(count, 1, generator=g) if outputs == 1 else torch.arange(count) % outputs
    return [(x[i : i + size], y[i : i + size]) for i in range(0, count, size)]


def mlp(outputs):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, outputs))


@pytest.mark.parametrize("outputs", [1, 3])
@pytest.mark.parametrize("name", ["fisher", "compensated"])
def test_units_matter_also_to_a_single_output(name, outputs):
    scores = IMPORTANCE[name](context(mlp(outputs), rows(128, 16, outputs), (8,)))
    assert len(scores) == 1 and (next(iter(scores.values())) > 0).mean() > 0.5


def test_fisher_does_not_hang_on_the_size_of_batches():
    large, small = (
        next(iter(IMPORTANCE["fisher"](context(mlp(3), rows(256, size, 3), (8,))).values()))
        for size in (16, 4)
    )
    assert 0.5 < np.median(large / np.maximum(small, 1e-12)) < 2.0


def test_a_net_of_transposed_convolutions_is_ranked_and_they_are_no_readers():
    net = nn.Sequential(
        nn.ConvTranspose2d(4, 8, 3), nn.ReLU(), nn.ConvTranspose2d(8, 6, 3), nn.Flatten()
    )
    x = torch.randn(8, 4, 3, 3)
    given = context(net, [(x, torch.randn(8, 6 * 49))], (4, 3, 3))
    scores = IMPORTANCE["compensated"](given)
    assert {len(s) for s in scores.values()} == {8}
    assert not any(consumers(given.module, g) for g in given.analysis.prunable)
