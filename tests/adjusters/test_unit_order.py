"""The order of removal against what least squares really gives."""

from __future__ import annotations

import pytest
import torch
from modelspeed.adjusters.methods.unit_order import DAMPING, Consumer, removal_order


def problem(units, block, seed=0):
    g = torch.Generator().manual_seed(seed)
    size = units * block
    x = torch.randn(4000, size, generator=g, dtype=torch.float64)
    x = x @ torch.randn(size, size, generator=g, dtype=torch.float64) / size**0.5
    weight = torch.randn(5, size, generator=g, dtype=torch.float64)
    fisher = torch.rand(5, generator=g, dtype=torch.float64)
    return x, weight, fisher


def reader(x, weight, fisher, block):
    covariance = x.T @ x / len(x)
    scaled = weight * (fisher / 2).sqrt()[:, None]
    return Consumer(scaled.T @ scaled, covariance, block)


def loss_without(x, weight, fisher, keep):
    """1/2 sum F E[dy^2] after ridge least squares of the kept features, by its definition."""
    y = x @ weight.T
    gram = x.T @ x / len(x)
    damp = DAMPING * float(gram.diagonal().mean())
    gram = gram + damp * torch.eye(len(gram), dtype=torch.float64)
    cross = gram[keep] @ weight.T
    fitted = torch.linalg.solve(gram[keep][:, keep], cross)
    change = weight.clone()
    change[:, keep] -= fitted.T
    del y
    return float(((change @ gram) * change).sum(1) @ fisher / 2)


@pytest.mark.parametrize("block", [1, 3])
def test_the_rises_sum_to_the_loss_of_the_fitted_remainder(block):
    x, weight, fisher = problem(6, block)
    scores = removal_order([reader(x, weight, fisher, block)], 6)
    going = scores.argsort()[:2]
    stay = [u for u in range(6) if u not in going.tolist()]
    keep = [u * block + i for u in stay for i in range(block)]
    assert float(scores[going].sum()) == pytest.approx(
        loss_without(x, weight, fisher, keep), rel=0.02
    )


def test_a_unit_that_others_can_replace_goes_first():
    x, weight, fisher = problem(5, 1)
    x[:, 3] = 0.5 * x[:, 0] - x[:, 1]
    scores = removal_order([reader(x, weight, fisher, 1)], 5)
    assert int(scores.argmin()) in (0, 1, 3)
    assert float(scores.min()) < 0.05 * float(scores.sort().values[1])
