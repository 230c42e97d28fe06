"""Lowering of integer weights under float activations: torch's kernels for few rows, else floats.

At few rows a linear layer waits for its weights, and a quarter or an eighth of the bytes arrive
sooner. The kernels are fast in bfloat16 alone (in float32 2-8 times slower than float weights on
torch 2.13), so that activations are rounded to its 8 bits on the way in and out.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod

import torch
from torch import Tensor
from torch.fx import GraphModule, Node

from ..capture import tensor_at
from ..edits.integer_weights import FOUR_BITS, IntegerWeight, integer_weight, unpacked
from ..operators import Arguments, aten
from ..shown_sizes import ShownSizes
from .int8 import shape_read
from .packing import LAYER, Packs, replace, tidy

FEW, LARGE = 4, 2**19  # rows, weights: with which they measured faster; smaller layers are not
GROUPS, ROWS_TOGETHER = (32, 64, 128, 256), 16  # what the kernel for 4 bits takes
MIDDLE = (FOUR_BITS + 1) // 2  # its values are (integer - middle) * scale + zero


def linear8(x: Tensor, integers: Tensor, scale: Tensor, bias: Tensor | None) -> Tensor:
    """x [..., in] in float32, int8 [out, in], bfloat16 [out]."""
    product = aten._weight_int8pack_mm(x.flatten(0, -2).to(torch.bfloat16), integers, scale)
    return _finished(product, x, bias)


def linear4(
    x: Tensor, packed: Tensor, group: int, scales_and_zeros: Tensor, bias: Tensor | None
) -> Tensor:
    """x [..., in] in float32, torch's packing, bfloat16 [in / group, out, 2]."""
    rows = x.flatten(0, -2).to(torch.bfloat16)
    product = aten._weight_int4pack_mm_for_cpu(rows, packed, group, scales_and_zeros)
    return _finished(product, x, bias)


def _finished(product: Tensor, x: Tensor, bias: Tensor | None) -> Tensor:
    product = product.to(torch.float32).view(*x.shape[:-1], -1)
    return product if bias is None else product.add_(bias)


def lower_weights(module: GraphModule, sizes: ShownSizes) -> None:
    """In place: large linear layers that read few rows at these sizes run on integers."""
    if not torch.cpu._is_avx512_supported():  # the rest was not measured
        return
    packs = Packs(module)
    for node in list(module.graph.nodes):
        weight = integer_weight(node.args[1]) if node.target is aten.linear.default else None
        if weight is None or not _few(node, sizes):
            continue
        lower = _lower8 if weight.minimum is None else _lower4
        lower(module, node, weight, packs)
    tidy(module)


def _few(node: Node, sizes: ShownSizes) -> bool:
    read, value = node.args[0], node.args[1].meta.get("val")  # type: ignore[union-attr]
    if not isinstance(read, Node) or not isinstance(value, Tensor) or value.numel() < LARGE:
        return False
    shape = shape_read(read, sizes, -1, 1)
    return shape is not None and len(shape) > 1 and prod(shape) <= FEW


def _lower8(module: GraphModule, node: Node, weight: IntegerWeight, packs: Packs) -> None:
    integers, scale = (tensor_at(module, n).detach() for n in (weight.integers, weight.scale))
    both = (integers.contiguous(), scale.flatten().to(torch.bfloat16))
    _put(module, node, linear8, tuple(packs.add(t, node) for t in both))


def _lower4(module: GraphModule, node: Node, weight: IntegerWeight, packs: Packs) -> None:
    pairs, scale, least = (
        tensor_at(module, str(n)).detach() for n in (weight.integers, weight.scale, weight.minimum)
    )
    integers = unpacked(pairs)
    group = integers.shape[1] // scale.shape[1]
    if group not in GROUPS or len(integers) % ROWS_TOGETHER:
        return
    laid = aten._convert_weight_to_int4pack_for_cpu(integers.to(torch.int32), 2)
    # The graph holds q * scale + minimum, the kernel (q - MIDDLE) * scale + zero: so
    # zero = minimum + MIDDLE * scale.
    ranges = torch.cat([scale, least + MIDDLE * scale], 2).transpose(0, 1)
    both = [packs.add(t, node) for t in (laid, ranges.contiguous().to(torch.bfloat16))]
    _put(module, node, linear4, (both[0], group, both[1]))


def _put(
    module: GraphModule, node: Node, kernel: Callable[..., Tensor], weights: Arguments
) -> None:
    bias = node.args[2] if len(node.args) > 2 else None
    call = replace(module, node, kernel, (node.args[0], *weights, bias))
    call.meta[LAYER] = node.name


def float_weights(module: GraphModule) -> GraphModule:
    """In place: integer weights that no kernel reads are multiplied out once, not on every call."""
    packs = Packs(module)
    for node in list(module.graph.nodes):
        weight = integer_weight(node)
        if weight is not None:
            value = packs.add(weight.floats(module), node)
            value.meta = dict(node.meta)
            node.replace_all_uses_with(value)
    return tidy(module)
