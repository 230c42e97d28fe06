"""Layers of a graph: convolutions and matrix products with a weight, and what they read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Node

from ..core.naming import outside
from .capture import tensor_at
from .mutation import is_written
from .operators import aten

CONVOLUTIONS = {
    getattr(aten, f"conv{n}d").default: n for n in (1, 2, 3)
} | {getattr(aten, f"conv{n}d").padding: n for n in (1, 2, 3)}  # fmt: skip


@dataclass(frozen=True)
class Layer:
    """One use of a weight [out, in / groups, *kernel] by `node`; `spatial_dims`: of the kernel."""

    node: Node
    weight: str
    bias: str | None
    spatial_dims: int
    stride: tuple[int, ...]
    padding: tuple[tuple[int, int], ...]
    dilation: tuple[int, ...]
    groups: int
    transposed: bool = False  # then the weight is [in, out / groups, *kernel] (graph/transposed.py)

    @property
    def source(self) -> Node:
        """Where its input comes from."""
        source = self.node.args[0]
        assert isinstance(source, Node)
        return source

    @property
    def name(self) -> str:
        """Of its module, where that holds no other weight than this one by the usual name."""
        owner, _, leaf = self.weight.rpartition(".")
        return outside(owner if owner and leaf == "weight" else self.weight)

    @property
    def channel_axis(self) -> int:
        """Of inputs and outputs: channels come after the batch, features last."""
        return 1 if self.spatial_dims else -1


def layers_of(module: GraphModule) -> Iterator[Layer]:
    """In the order they run. Weights that the graph computes or writes are not among them."""
    for node in module.graph.nodes:
        layer = _layer(module, node)
        if layer is not None:
            yield layer


def _layer(module: GraphModule, node: Node) -> Layer | None:
    spatial_dims = CONVOLUTIONS.get(node.target, 0)
    if not spatial_dims and node.target is not aten.linear.default:
        return None
    weight = parameter_argument(node, 1, "weight")
    if weight is None:
        return None
    bias = parameter_argument(node, 2, "bias")
    if not spatial_dims:
        return Layer(node, weight, bias, 0, (), (), (), 1)
    kernel = tensor_at(module, weight).shape[2:]
    stride = _each(node, 3, "stride", spatial_dims)
    dilation = _each(node, 5, "dilation", spatial_dims)
    groups = int(call_argument(node, 6, "groups", 1))
    padding = _padding(node, spatial_dims, kernel, dilation)
    return Layer(node, weight, bias, spatial_dims, stride, padding, dilation, groups)


def call_argument(node: Node, place: int, name: str, default: object) -> Any:
    """An argument of a call, by its place or its name."""
    return node.args[place] if len(node.args) > place else node.kwargs.get(name, default)


def parameter_argument(node: Node, place: int, name: str) -> str | None:
    """The name of the parameter that an argument is."""
    value = call_argument(node, place, name, None)
    constant = isinstance(value, Node) and value.op == "get_attr" and not is_written(value)
    return str(value.target) if constant else None


def _each(node: Node, place: int, name: str, spatial_dims: int) -> tuple[int, ...]:
    value = call_argument(node, place, name, 1)
    items = [value] if isinstance(value, int) else list(value)
    return tuple(int(i) for i in (items * spatial_dims if len(items) == 1 else items))


def _padding(
    node: Node, spatial_dims: int, kernel: Sequence[int], dilation: Sequence[int]
) -> tuple[tuple[int, int], ...]:
    value = call_argument(node, 4, "padding", 0)
    if value == "valid":
        return ((0, 0),) * spatial_dims
    if value == "same":  # an odd total leaves the larger half at the end
        totals = [d * (k - 1) for k, d in zip(kernel, dilation, strict=True)]
        return tuple((t // 2, t - t // 2) for t in totals)
    items = [value] if isinstance(value, int) else list(value)
    sizes = items * spatial_dims if len(items) == 1 else items
    return tuple((int(p), int(p)) for p in sizes)


def sample_positions(layer: Layer, output: Tensor, samples: int, seed: int) -> Tensor:
    """About `samples` random positions of an output, as [samples, 1 + spatial dims]: example first.

    Features-last outputs count everything before the features as examples.
    """
    generator = torch.Generator().manual_seed(seed)
    if not layer.spatial_dims:
        total = output.numel() // output.shape[-1]
        chosen = torch.randperm(total, generator=generator)[:samples].sort().values
        return chosen.unsqueeze(1).to(output.device)
    sizes = [output.shape[0], *output.shape[2:]]
    total = int(torch.tensor(sizes).prod())
    flat = torch.randperm(total, generator=generator)[:samples].sort().values
    return torch.stack(torch.unravel_index(flat, tuple(sizes)), 1).to(output.device)


def outputs_at(layer: Layer, output: Tensor, where: Tensor) -> Tensor:
    """[samples, out]: the output's channels at `sample_positions`."""
    if not layer.spatial_dims:
        return output.reshape(-1, output.shape[-1])[where[:, 0]]
    return output.movedim(1, -1)[tuple(where.T)]


def patches_at(layer: Layer, value: Tensor, kernel: Sequence[int], where: Tensor) -> Tensor:
    """[samples, in, kernel positions]: what the layer reads of `value` to make those outputs."""
    if not layer.spatial_dims:
        return value.reshape(-1, value.shape[-1])[where[:, 0]].unsqueeze(-1)
    pads = [p for pair in reversed(layer.padding) for p in pair]
    wide = torch.nn.functional.pad(value, pads).movedim(1, -1)
    kernel_positions = []
    for offset in product(*(range(k) for k in kernel)):
        at = [
            where[:, 1 + axis] * layer.stride[axis] + offset[axis] * layer.dilation[axis]
            for axis in range(layer.spatial_dims)
        ]
        kernel_positions.append(wide[(where[:, 0], *at)])
    return torch.stack(kernel_positions, -1)
