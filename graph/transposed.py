"""Transposed convolutions as layers: their weight turned to [out, in / groups, *kernel] and back.

Torch holds it as [in, out / groups, *kernel]. Output place p reads, by tap k, the input place
(p + padding - k * dilation) / stride, where that is a whole number inside the input.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product

import torch
from torch import Tensor
from torch.fx import GraphModule, Node

from .capture import tensor_at
from .layers import Layer, call_argument, parameter_argument
from .operators import aten

TRANSPOSED = {
    aten.conv_transpose1d.default: 1,
    aten.conv_transpose2d.input: 2,
    aten.conv_transpose3d.input: 3,
}


def turned(weight: Tensor, groups: int) -> Tensor:
    """[in, out / groups, *kernel] as [out, in / groups, *kernel], or back: it is its own inverse.

    A copy; the input and output channels of a group stay together.
    """
    first, second, *kernel = weight.shape
    apart = weight.reshape(groups, first // groups, second, *kernel).transpose(1, 2)
    return apart.reshape(groups * second, first // groups, *kernel).contiguous()


def groups_of(node: Node) -> int:
    return int(call_argument(node, 6, "groups", 1))


def transposed_layers_of(module: GraphModule) -> Iterator[Layer]:
    """In the order they run; `padding` of a Layer is what the operator takes off its output."""
    for node in module.graph.nodes:
        spatial_dims = TRANSPOSED.get(node.target)
        weight = parameter_argument(node, 1, "weight") if spatial_dims else None
        if spatial_dims and weight is not None:
            stride, dilation = _each(node, 3, 1, spatial_dims), _each(node, 7, 1, spatial_dims)
            padding = tuple((p, p) for p in _each(node, 4, 0, spatial_dims))
            bias = parameter_argument(node, 2, "bias")
            yield Layer(
                node,
                weight,
                bias,
                spatial_dims,
                stride,
                padding,
                dilation,
                groups_of(node),
                transposed=True,
            )


def _each(node: Node, place: int, default: int, spatial_dims: int) -> tuple[int, ...]:
    names = {3: "stride", 4: "padding", 7: "dilation"}
    value = call_argument(node, place, names[place], default)
    items = [value] if isinstance(value, int) else list(value)
    return tuple(int(i) for i in (items * spatial_dims if len(items) == 1 else items))


def forward_weight(module: GraphModule, layer: Layer) -> Tensor:
    """[out, in / groups, *kernel] of any layer; a copy where it is transposed."""
    weight = tensor_at(module, layer.weight)
    return turned(weight, layer.groups) if layer.transposed else weight


def transposed_patches_at(
    layer: Layer, value: Tensor, kernel: Sequence[int], where: Tensor
) -> Tensor:
    """[samples, in, kernel positions]: what the layer reads of `value` to make those outputs."""
    last, sizes = value.movedim(1, -1), value.shape[2:]
    kernel_positions = []
    for offset in product(*(range(k) for k in kernel)):
        at, inside = [], torch.ones(len(where), dtype=torch.bool, device=where.device)
        for axis in range(layer.spatial_dims):
            place = (
                where[:, 1 + axis] + layer.padding[axis][0] - offset[axis] * layer.dilation[axis]
            )
            source = place.div(layer.stride[axis], rounding_mode="floor")
            inside &= (
                (source * layer.stride[axis] == place) & (source >= 0) & (source < sizes[axis])
            )
            at.append(source.clamp(0, sizes[axis] - 1))
        read = last[(where[:, 0], *at)]
        kernel_positions.append(torch.where(inside[:, None], read, torch.zeros_like(read)))
    return torch.stack(kernel_positions, -1)


def outputs_left(
    original: Sequence[int], groups: int, kept: Sequence[Sequence[int] | None]
) -> list[int]:
    """Output channels of the original that a transposed layer still makes.

    `original`: shape of its weight there; `kept`: the indices left of axes 0 and 1, None for all.
    """
    ins = range(original[0]) if kept[0] is None else kept[0]
    within = range(original[1]) if kept[1] is None else kept[1]
    left = dict.fromkeys(i * groups // original[0] for i in ins)  # whole groups may be gone
    return [group * original[1] + place for group in left for place in within]
