"""The cost of leaving out a residual block, in the currency of `importance: compensated`.

y = x + f(x) becomes x. What the layers behind it can make up for is the part of f that is linear in
x; the rise in loss is 1/2 sum_c F_c r_c, F the curvature of the loss in the channels of y (summed
over places) and r the variance of f that a linear regression on x leaves unexplained.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from torch.fx import GraphModule, Node

from ...core.errors import DataError
from ...core.model_io import Inputs, primary
from ...graph.blocks import Block
from ...graph.capture import clone
from ...graph.interpreter import Recorder
from ...graph.layers import layers_of
from ...graph.train_mode import gradients
from ..plan import Context
from .moments import EXAMPLES, SAMPLES, asked, direction, enough

RIDGE = 1e-3
WIDEST = 1024  # channels; of wider sums the first ones stand for all


@dataclass
class _Sums:
    """Over samples z = [x, f(x)] of a block: z z^T and z; the squared gradient of each channel."""

    outer: Tensor
    total: Tensor
    fisher: Tensor
    samples: int = 0
    examples: int = 0

    @classmethod
    def empty(cls, channels: int, device: torch.device) -> _Sums:
        zeros = partial(torch.zeros, dtype=torch.float64, device=device)
        size = 2 * channels
        return cls(zeros(size, size), zeros(size), zeros(channels))

    def loss(self) -> float:
        mean = self.total / max(1, self.samples)
        covariance = self.outer / max(1, self.samples) - torch.outer(mean, mean)
        half = len(mean) // 2
        xx, xf, ff = covariance[:half, :half], covariance[:half, half:], covariance[half:, half:]
        scale = float(xx.diagonal().mean().clamp_min(1e-30))
        damped = xx + RIDGE * scale * torch.eye(half, dtype=xx.dtype, device=xx.device)
        explained = (xf * torch.linalg.solve(damped, xf)).sum(0)
        left = (ff.diagonal() - explained).clamp_min(0.0)
        return 0.5 * float((self.fisher / max(1, self.examples) * left).sum())


def block_losses(context: Context, blocks: Sequence[Block]) -> dict[str, float]:
    """Rise in loss by the name of each block's sum. Raises DataError without data."""
    if context.train is None:
        raise DataError("what a block is worth is found out on training data; there is none.")
    module = clone(context.module)
    for parameter in module.parameters():
        parameter.requires_grad_(False)
    watched = _Watched(module, blocks)
    generator = torch.Generator(context.device).manual_seed(context.seed)
    seen, started = 0, time.monotonic()
    for inputs, targets in context.train:
        given = Inputs.of(inputs).map(lambda x: x.to(context.device))
        watched.examples = len(given[0])
        with gradients():
            outputs = primary(watched.of(given))
            (outputs * direction(outputs.detach(), targets, generator)).sum().backward()
        seen += len(given[0])
        if enough(seen, started):
            break
    return {name: sums.loss() for name, sums in watched.sums.items()}


class _Watched(Recorder):
    """Notes what goes into each block's sum as it is computed: what follows may overwrite it."""

    def __init__(self, module: GraphModule, blocks: Sequence[Block]) -> None:
        super().__init__(module)
        self.examples = 0
        self.sums: dict[str, _Sums] = {}
        self._blocks = {b.total: b for b in blocks}
        axes = {layer.weight: layer.channel_axis for layer in layers_of(module)}
        self._axes = {b.total: next((axes[p] for p in b.params if p in axes), -1) for b in blocks}

    def run_node(self, n: Node) -> object:
        block = self._blocks.get(n.name)
        if block is None:
            return super().run_node(n)
        sides = [self.env[a] for a in n.args[:2] if isinstance(a, Node)]
        skip = next(a for a in n.all_input_nodes if a.name == block.skip)
        first = n.args[0] is skip
        before, change = (x.detach().clone() for x in (sides if first else sides[::-1]))
        result = asked(super().run_node(n))
        axis = self._axes[n.name]
        self._add(n.name, *(_samples(x, axis) for x in (before, change)))
        result.register_hook(lambda g: self._matters(n.name, _samples(g, axis)))  # type: ignore[no-untyped-call]
        return result

    def _add(self, name: str, before: Tensor, change: Tensor) -> None:
        sums = self.sums.get(name)
        if sums is None:
            sums = self.sums[name] = _Sums.empty(before.shape[1], before.device)
        step = max(1, len(before) // (SAMPLES * self.examples // EXAMPLES + 1))
        both = torch.cat([before[::step], change[::step]], 1).double()
        sums.outer += both.T @ both
        sums.total += both.sum(0)
        sums.samples += len(both)
        sums.examples += self.examples

    def _matters(self, name: str, grad: Tensor) -> None:
        self.sums[name].fisher += grad.square().sum(0).double()


def _samples(value: Tensor, axis: int) -> Tensor:
    """[samples, channels], of channels no more than `WIDEST`: it bounds memory, 34 MB a block."""
    return value.movedim(axis, -1).flatten(0, -2)[:, :WIDEST]
