"""Weights held as integers, spelled out in ATen arithmetic as in quantization.py.

    8 bits   int8 [out, ...] as float * scale [out, 1, ...]        symmetric, per output channel
    4 bits   0..15 [out, groups, size] as float * scale [out, groups, 1] + least [out, groups, 1]

4 bits are for linear layers; inputs i and i + in / 2 share a byte of a uint8 [out, in / 2].
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.fx import GraphModule, Node

from ...core.errors import EditError
from ..capture import tensor_at
from ..operators import aten
from .quantization import QMAX, quantizable

FOUR_BITS = 15
LEAST_GROUP = 16  # below it scales take more room than the weights


@dataclass(frozen=True)
class IntegerWeight:
    """Names of the tensors that a weight consists of; one of 4 bits has a `minimum`."""

    integers: str
    scale: str
    minimum: str | None = None

    def floats(self, module: GraphModule) -> Tensor:
        """float32 [out, ...]: what the graph multiplies out."""
        integers, scale = (tensor_at(module, n).detach() for n in (self.integers, self.scale))
        if self.minimum is None:
            return integers.to(torch.float32) * scale
        grouped = unpacked(integers).reshape(*scale.shape[:2], -1).to(torch.float32)
        return (grouped * scale + tensor_at(module, self.minimum).detach()).flatten(1)

    def grid(self, module: GraphModule) -> Grid:
        """The values that its integers stand for."""
        shape, scale = (
            tensor_at(module, self.integers).shape,
            tensor_at(module, self.scale).detach(),
        )
        if self.minimum is None:
            step = scale.flatten(1).expand(-1, shape[1:].numel())
            return Grid(step, torch.zeros_like(step), -QMAX, QMAX)
        least = tensor_at(module, self.minimum).detach()
        step, least = (
            t.expand(-1, -1, 2 * shape[1] // t.shape[1]).flatten(1) for t in (scale, least)
        )
        return Grid(step, least, 0, FOUR_BITS)

    def stored(self, integers: Tensor) -> Tensor:
        """Integers [out, ...] as they are held."""
        if self.minimum is None:
            return integers.to(torch.int8)
        return packed(integers.to(torch.uint8))


@dataclass(frozen=True)
class Grid:
    """Weights [out, in] are k * `scale` + `minimum`, for whole k from `qmin` to `qmax`."""

    scale: Tensor
    minimum: Tensor
    qmin: int
    qmax: int


def group_of(weight: Tensor, most: int) -> int | None:
    """The largest group of inputs up to `most` that a weight [out, in] divides into; None where
    there is none worth it, or no two inputs for every byte."""
    if weight.dim() != 2 or weight.shape[1] % 2:
        return None
    sizes = range(min(most, weight.shape[1]), LEAST_GROUP - 1, -1)
    return next((size for size in sizes if weight.shape[1] % size == 0), None)


def quantize_weight(module: GraphModule, node: Node, group: int | None = None) -> None:
    """Hold the weight of layer `node` in 8 bits, or in 4 with a scale for each `group` inputs."""
    if not quantizable(node):
        raise EditError(f"`{node.name}` is not a layer with a float32 weight of its own.")
    weight = node.args[1]
    assert isinstance(weight, Node)
    name = str(weight.target)
    floats = tensor_at(module, name).detach()
    if group is not None and group_of(floats, group) != group:
        raise EditError(f"the weight of `{node.name}` does not divide into groups of {group}.")
    integers, *ranges = rounded_weight(floats) if group is None else rounded_groups(floats, group)
    owner, _, leaf = name.rpartition(".")
    holder = module.get_submodule(owner)
    setattr(holder, leaf, nn.Parameter(integers, requires_grad=False))
    read = []
    with module.graph.inserting_before(node):
        for suffix, value in zip(("scale", "least"), ranges, strict=False):
            holder.register_buffer(f"{leaf}_{suffix}", value)
            read.append(module.graph.get_attr(f"{name}_{suffix}"))
        product = (
            _floats8(weight, *read) if group is None else _floats4(weight, read, floats, group)
        )
    weight.meta["val"] = torch.empty_like(integers, device="meta")
    product.meta["val"] = torch.empty_like(floats, device="meta")
    node.args = (node.args[0], product, *node.args[2:])


def _floats8(weight: Node, scale: Node) -> Node:
    call = weight.graph.call_function
    return call(aten.mul.Tensor, (call(aten.to.dtype, (weight, torch.float32)), scale))


def _floats4(weight: Node, ranges: list[Node], floats: Tensor, group: int) -> Node:
    call, (scale, least) = weight.graph.call_function, ranges
    low = call(aten.bitwise_and.Scalar, (weight, FOUR_BITS))
    high = call(aten.bitwise_right_shift.Tensor_Scalar, (weight, 4))
    both = call(aten.cat.default, ([low, high], 1))
    grouped = call(aten.view.default, (both, [len(floats), -1, group]))
    scaled = call(aten.mul.Tensor, (call(aten.to.dtype, (grouped, torch.float32)), scale))
    shifted = call(aten.add.Tensor, (scaled, least))
    return call(aten.view.default, (shifted, list(floats.shape)))


def rounded_weight(weight: Tensor) -> tuple[Tensor, Tensor]:
    """int8 [out, ...] and float32 scales [out, 1, ...]."""
    largest = weight.abs().amax(tuple(range(1, weight.dim())), keepdim=True)
    scale = (largest / QMAX).clamp_min(torch.finfo(torch.float32).tiny)
    return (weight / scale).round().clamp(-QMAX, QMAX).to(torch.int8), scale


def rounded_groups(weight: Tensor, group: int) -> tuple[Tensor, Tensor, Tensor]:
    """Packed uint8 [out, in / 2], float32 scales and least values [out, in / group, 1].

    From the least to the largest weight of a group: on normal weights a tenth nearer than ranges
    that are symmetric about 0.
    """
    grouped = weight.reshape(len(weight), -1, group)
    least = grouped.amin(2, keepdim=True)
    scale = (grouped.amax(2, keepdim=True) - least) / FOUR_BITS
    scale = scale.clamp_min(torch.finfo(torch.float32).tiny)
    steps = ((grouped - least) / scale).round().clamp(0, FOUR_BITS)
    return packed(steps.flatten(1).to(torch.uint8)), scale, least


def packed(integers: Tensor) -> Tensor:
    """uint8 [out, in / 2] of 0..15 [out, in]."""
    low, high = integers.chunk(2, 1)
    return low | high << 4


def unpacked(pairs: Tensor) -> Tensor:
    """uint8 [out, in] from 0 to 15: the inverse of `packed`."""
    return torch.cat([pairs & FOUR_BITS, pairs >> 4], 1)


def integer_weight(node: object) -> IntegerWeight | None:
    """The integers that `node` is multiplied out from; None if it is not such a weight."""
    steps = _steps_to(node, *_STEPS8) or _steps_to(node, *_STEPS4)
    if steps is None:
        return None
    if len(steps) == len(_STEPS8):
        scaled, floats = steps
        read, dtype = [floats.args[0], scaled.args[1]], torch.int8
    else:
        _, shifted, scaled, *_, both = steps
        first = both.args[0][0]  # type: ignore[index]
        read, dtype = [first.args[0], scaled.args[1], shifted.args[1]], torch.uint8  # type: ignore[union-attr]
    if not all(isinstance(n, Node) and n.op == "get_attr" for n in read):
        return None
    weight = IntegerWeight(*(str(n.target) for n in read))  # type: ignore[union-attr]
    module = steps[0].graph.owning_module
    assert module is not None
    return weight if tensor_at(module, weight.integers).dtype == dtype else None


def int8_weight(node: object) -> IntegerWeight | None:
    weight = integer_weight(node)
    return weight if weight is not None and weight.minimum is None else None


_VIEWS = (aten.view.default, aten.reshape.default)  # lowering makes the one the other
_STEPS8 = ((aten.mul.Tensor,), (aten.to.dtype,))
_STEPS4 = (
    _VIEWS, (aten.add.Tensor,), (aten.mul.Tensor,), (aten.to.dtype,), _VIEWS, (aten.cat.default,),
)  # fmt: skip


def _steps_to(node: object, *targets: tuple[object, ...]) -> list[Node] | None:
    """`node` and what it is made of in turn, the last first, where those are the operators."""
    steps: list[Node] = []
    for allowed in targets:
        if not isinstance(node, Node) or node.target not in allowed:
            return None
        steps.append(node)
        node = node.args[0]
    return steps
