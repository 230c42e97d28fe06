"""Scales that make the ranges of a layer's channels equal to those of the weights that read them.

Nagel et al. 2019, section 4.1. Weights have a scale for each output channel here, so the gain is in
activations, which have one for all channels: with training data it is their own ranges that count
(Xiao et al. 2023, eq. 4), not those of the weights that make them, which know nothing of biases.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor
from torch.fx import GraphModule, Node

from ...graph.capture import clone
from ...graph.edits.apply import Equalize
from ...graph.edits.equalizing import Joint, balancing, joints, made_by_weights, rescale
from ...graph.interpreter import Recorder
from ...graph.layers import Layer
from ..plan import Context
from .calibration import batches

ROUNDS = 3  # each moves its neighbors' ranges again


def equalization_edits(context: Context, module: GraphModule, examples: int) -> list[Equalize]:
    """One edit for each layer of `module` that can be scaled; `module` is not changed."""
    trial = clone(module)
    pairs = joints(trial)
    seen = _seen(context, trial, pairs, examples)
    factors = [torch.ones_like(made_by_weights(trial, pair)) for pair in pairs]
    for _ in range(ROUNDS):
        for pair, factor in zip(pairs, factors, strict=True):
            ranges = _made(pair, seen) / factor if seen else made_by_weights(trial, pair)
            change = balancing(trial, pair, ranges)
            rescale(trial, pair, change)
            factor *= change
    return [
        Equalize(pair.maker.node.name, tuple(factor.tolist()))
        for pair, factor in zip(pairs, factors, strict=True)
    ]


def _made(pair: Joint, seen: dict[Node, Tensor]) -> Tensor:
    return torch.stack([seen[reader.node] for reader in pair.readers]).amax(0)


def _seen(
    context: Context, module: GraphModule, pairs: Iterable[Joint], examples: int
) -> dict[Node, Tensor]:
    """[channels] by reader: the largest value that it reads; nothing without training data."""
    watched = _Ranges(module, (reader for pair in pairs for reader in pair.readers))
    with torch.no_grad():
        for given in batches(context, examples):
            watched.of(given)
    return watched.largest


class _Ranges(Recorder):
    def __init__(self, module: GraphModule, layers: Iterable[Layer]) -> None:
        super().__init__(module)
        self.layers = {layer.node: layer for layer in layers}
        self.largest: dict[Node, Tensor] = {}

    def run_node(self, n: Node) -> object:
        layer = self.layers.get(n)
        if layer is not None:
            read = self.env[layer.source].movedim(layer.channel_axis, -1)
            largest = read.abs().flatten(0, -2).amax(0)
            self.largest[n] = torch.maximum(largest, self.largest.get(n, largest))
        return super().run_node(n)
