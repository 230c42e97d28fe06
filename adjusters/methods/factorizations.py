"""Ways to split one layer, each with what it loses; timing decides between them (low_rank.py)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial

from torch import Tensor
from torch.fx import GraphModule

from ...graph.capture import tensor_at
from ...graph.edits.apply import Factor, SpatialFactor, TuckerFactor
from ...graph.edits.factoring import factors, full_rank, new_name
from ...graph.layers import Layer
from .spectrum import Spectrum

STEPS = (8, 16, 32)  # kernels work on so many channels at once
SplitEdit = Factor | SpatialFactor | TuckerFactor


@dataclass(frozen=True)
class Factorization:
    """`error`: fraction of the variance of the layer's outputs that is lost. `cost`: numbers that
    are multiplied for one place of the output. `weights`: what the new layers get, by name."""

    name: str
    edit: SplitEdit
    error: float
    cost: float
    weights: Callable[[], dict[str, Tensor]]


def stepped(least: int, most: int) -> list[int]:
    """`least` and the next steps of kernels above it, as far as `most`."""
    steps = {least, *(-(-least // step) * step for step in STEPS)}
    return sorted(rank for rank in steps if rank <= most)


def weight_and_bias(module: GraphModule, layer: Layer) -> tuple[Tensor, Tensor]:
    """Weight and bias, zeros where it has none."""
    weight = tensor_at(module, layer.weight).detach()
    bias = tensor_at(module, layer.bias).detach() if layer.bias else weight.new_zeros(len(weight))
    return weight, bias


def bias_name(layer: Layer, last: str) -> str:
    """Of the last of the new layers, whose weight is `last`."""
    return layer.bias or last.removesuffix("weight") + "bias"


def by_outputs(
    module: GraphModule, layer: Layer, decomposition: Spectrum, ranks: Iterable[int]
) -> list[Factorization]:
    """To few channels, then 1x1 to all (graph/edits/factoring.py)."""
    weight, _ = weight_and_bias(module, layer)
    splits = []
    for rank in ranks:
        cost = rank * (weight[0].numel() + len(weight))
        if 0 < rank < full_rank(weight) and cost < weight.numel():
            values = partial(_factored, module, layer, decomposition, rank)
            edit = Factor(layer.node.name, rank)
            splits.append(
                Factorization(
                    f"channels, rank {rank}", edit, decomposition.error(rank), cost, values
                )
            )
    return splits


def _factored(
    module: GraphModule, layer: Layer, decomposition: Spectrum, rank: int
) -> dict[str, Tensor]:
    weight, bias = weight_and_bias(module, layer)
    second = new_name(module, layer.weight)
    first, other = factors(weight, decomposition.basis[:, :rank])
    shift = decomposition.bias(rank, bias).to(weight.dtype)
    return {layer.weight: first, second: other, bias_name(layer, second): shift}
