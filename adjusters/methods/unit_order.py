"""The order in which units of a group go, and the rise in loss by each.

Optimal Brain Surgeon over whole units (Hassibi & Stork 1993, eq. 5, in blocks): a unit goes where
the layers that read it can best make up for it from the units that stay. The rise in loss is
1/2 sum_o F_o E[dy_o^2], F the curvature of the loss in the outputs y of those layers.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

STEPS = 64
DAMPING = 1e-3


@dataclass
class Consumer:
    """One layer that reads the units, in the units' order.

    `metric` [D, D] is W^T diag(F) W / 2 summed over kernel positions, `covariance` [D, D] (or [D])
    that of its inputs; D = units x features of a unit.
    """

    metric: Tensor
    covariance: Tensor
    block: int

    def __post_init__(self) -> None:
        if self.covariance.dim() == 2:
            size = len(self.covariance)
            scale = float(self.covariance.diagonal().mean().clamp_min(1e-30))
            damped = self.covariance + DAMPING * scale * torch.eye(size, dtype=torch.float64)
            self.inverse = torch.linalg.inv(damped)

    def costs(self) -> Tensor:
        """[units]: rise in loss when one more unit goes, the rest making up for it."""
        if self.covariance.dim() == 1:
            costs = (self.metric * self.covariance).reshape(-1, self.block).sum(1)
        elif self.block == 1:
            costs = self.metric.diagonal() / self.inverse.diagonal().clamp_min(1e-30)
        else:
            size = len(self.metric) // self.block
            own, metric = self._blocks(self.inverse, size), self._blocks(self.metric, size)
            costs = torch.linalg.solve(own, metric).diagonal(0, 1, 2).sum(1)
        return costs

    def _blocks(self, matrix: Tensor, size: int) -> Tensor:
        tiles = matrix.reshape(size, self.block, size, self.block)
        at = torch.arange(size)
        return tiles[at, :, at, :]

    def remove(self, units: Tensor, stay: Tensor) -> None:
        """Weights of the rest are updated as least squares would; the units leave the matrices."""
        if self.covariance.dim() == 1:
            keep = self._features(stay)
            self.metric, self.covariance = self.metric[keep], self.covariance[keep]
            return
        gone, keep = self._features(units), self._features(stay)
        across = torch.linalg.solve(self.inverse[gone][:, gone], self.inverse[gone][:, keep]).T
        rows = self.metric[gone][:, keep]
        inner = across @ self.metric[gone][:, gone] @ across.T
        mixed = across @ rows
        self.metric = self.metric[keep][:, keep] - mixed - mixed.T + inner
        self.inverse = self.inverse[keep][:, keep] - across @ self.inverse[gone][:, keep]

    def _features(self, units: Tensor) -> Tensor:
        return (units[:, None] * self.block + torch.arange(self.block)).reshape(-1)


def removal_order(readers: list[Consumer], size: int) -> Tensor:
    """[size] float64: the rise in loss at which each unit goes, never falling along the way."""
    scores = torch.zeros(size, dtype=torch.float64)
    left = torch.arange(size)
    chunk = -(-size // STEPS)
    least = 0.0
    while len(left) > 1:
        costs = torch.stack([r.costs() for r in readers]).sum(0)
        ranked = costs.argsort(stable=True)
        here = ranked[: min(chunk, len(left) - 1)]
        for place in here.tolist():
            least = max(least, float(costs[place]))
            scores[left[place]] = least
        stay = torch.ones(len(left), dtype=torch.bool)
        stay[here] = False
        kept = stay.nonzero()[:, 0]
        for reader in readers:
            reader.remove(here, kept)
        left = left[kept]
    costs = torch.stack([r.costs() for r in readers]).sum(0)
    scores[left] = max(least, float(costs[0]))
    return scores
