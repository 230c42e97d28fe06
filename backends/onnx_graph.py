"""A graph as ONNX is to hold it: integers marked, and layers between roundings where they can be.

A runtime makes an integer kernel of a convolution whose input, weight and output are all rounded.
Ours add to a sum in floats and round that. So an output that is not rounded is rounded within the
range outside which nothing that reads it would tell a difference (`_range_seen`); where there is
no such range the convolution stays in floats, weights included.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Node

from ..graph.capture import tensor_at
from ..graph.edits.integer_weights import int8_weight
from ..graph.edits.quantization import rounded
from ..graph.lowering.fusing import only_user
from ..graph.lowering.lower import folded_copy
from ..graph.lowering.packing import insert_call, replace, tidy
from ..graph.operators import aten
from .handing_over import by_place
from .onnx_operators import BYTE, floats_mark, rounded_mark

_RELUS = (aten.relu.default, aten.relu_.default)
_ENDS: dict[Any, tuple[float, float]] = {  # ends where a call gives none
    aten.relu6.default: (0.0, 6.0), aten.relu6_.default: (0.0, 6.0),
    aten.hardtanh.default: (-1.0, 1.0), aten.hardtanh_.default: (-1.0, 1.0),
}  # fmt: skip
_SUMS = (aten.add.Tensor, aten.add_.Tensor)
_PASSING = (
    aten.amax.default, aten.max_pool2d.default, aten.flatten.using_ints, aten.view.default,
    aten.reshape.default, aten.squeeze.dims, aten.unsqueeze.default, aten.permute.default,
    aten.transpose.int,
)  # fmt: skip
MOST = 2**31 - 1  # of an int32
COARSEST = 3.0  # times the step of what an output is rounded to in the end


@dataclass(frozen=True)
class Range:
    """Values up to `low` are as good as `low`, those from `high` on as `high`; `step`: the finest
    rounding of what comes of them."""

    low: float
    high: float
    step: float

    def joined(self, other: Range) -> Range:
        return Range(
            min(self.low, other.low), max(self.high, other.high), min(self.step, other.step)
        )


def exportable(module: GraphModule) -> GraphModule:
    """A copy for torch's exporter: inputs and outputs by place, marks of onnx_operators.py.

    Raises MeasureError for outputs that are not tensors.
    """
    flat = folded_copy(module)
    for node in list(flat.graph.nodes):
        rounding = rounded(node)
        if rounding is not None:
            step = (rounding.scale, rounding.zero_point, rounding.levels)
            replace(flat, node, rounded_mark(), (rounding.source, *step))
    tidy(flat)
    _round_ahead(flat)
    _merge(flat)
    for node in list(flat.graph.nodes):
        if node.target in (aten.conv1d.default, aten.conv2d.default) and _is_integer(node):
            if _rounds_output(flat, node):
                _mark_weight(flat, node)
        elif node.target is aten.linear.default and _is_integer(node):
            _mark_linear(flat, node)
    _merge(flat)
    return by_place(flat)


def _is_integer(layer: Node) -> bool:
    return int8_weight(layer.args[1]) is not None and _is_rounded(layer.args[0])


def _is_rounded(node: object) -> bool:
    return isinstance(node, Node) and node.target is rounded_mark()


def _round_ahead(module: GraphModule) -> None:
    """Roundings also stand before what passes values on unchanged: there it passes integers."""
    open_ = [node for node in module.graph.nodes if _is_rounded(node)]
    while open_:
        node = open_.pop()
        source = node.args[0]
        if not isinstance(source, Node) or len(source.users) > 1:
            continue
        inner = source.args[0] if source.target in _PASSING else None
        if isinstance(inner, Node):
            read = insert_call(module, source, rounded_mark(), (inner, *node.args[1:]))
            read.meta = dict(inner.meta)
            source.args = (read, *source.args[1:])
            open_.append(read)


def _merge(module: GraphModule) -> None:
    """Equal roundings of one value as one: an output that is rounded once is an integer kernel's"""
    first: dict[tuple[Any, ...], Node] = {}
    for node in list(module.graph.nodes):
        if _is_rounded(node):
            kept = first.setdefault(node.args, node)
            if kept is not node:
                node.replace_all_uses_with(kept)
                module.graph.erase_node(node)


def _rounds_output(module: GraphModule, layer: Node) -> bool:
    """True if the convolution's output is rounded, by now."""
    tail = layer
    while (user := only_user(tail)) is not None and (user.target in _RELUS or user.target in _ENDS):
        tail = user
    last = only_user(tail)
    if _is_rounded(last):
        return True
    seen = _range_seen(tail)
    if seen is None or not seen.low < seen.high:
        return False
    low, high = min(seen.low, 0.0), max(seen.high, 0.0)
    scale = (high - low) / BYTE
    if scale > COARSEST * seen.step:
        return False
    with module.graph.inserting_after(tail):
        arguments = (tail, scale, round(-low / scale), BYTE)
        value = module.graph.call_function(rounded_mark(), arguments)
    if "val" in tail.meta:
        value.meta["val"] = tail.meta["val"]
    tail.replace_all_uses_with(value, delete_user_cb=lambda user: user is not value)
    return True


def _range_seen(node: Node) -> Range | None:
    """None where values of any size make a difference."""
    ranges = [_range_seen_by(user, node) for user in node.users]
    known = [r for r in ranges if r is not None]
    return reduce(Range.joined, known) if known and len(known) == len(ranges) else None


def _range_seen_by(user: Node, node: Node) -> Range | None:
    if _is_rounded(user):
        return _ends_of(user)
    if user.target in _SUMS:
        return _of_term(user, node)
    if user.target not in (*_PASSING, *_RELUS, *_ENDS):
        return None
    seen = _range_seen(user)
    if seen is None or user.target in _PASSING:
        return seen
    if user.target in _RELUS:
        return Range(max(seen.low, 0.0), seen.high, seen.step)
    return _between(seen, user)


def _ends_of(rounding: Node) -> Range:
    _, scale, zero_point, levels = rounding.args
    low = -zero_point * scale  # type: ignore[operator]
    return Range(low, (levels - zero_point) * scale, scale)  # type: ignore[operator, arg-type]


def _of_term(sum_: Node, node: Node) -> Range | None:
    others = [a for a in sum_.args[:2] if a is not node]
    if len(others) != 1 or not _is_rounded(others[0]) or sum_.kwargs.get("alpha", 1) != 1:
        return None
    seen, other = _range_seen(sum_), _ends_of(others[0])  # type: ignore[arg-type]
    return seen and Range(seen.low - other.high, seen.high - other.low, seen.step)


def _between(seen: Range, user: Node) -> Range | None:
    given: tuple[Any, ...] = (*user.args[1:3], *_ENDS[user.target][len(user.args) - 1 :])
    low, high = given
    if user.kwargs or not isinstance(low, (int, float)) or not isinstance(high, (int, float)):
        return None
    return Range(max(seen.low, low), min(seen.high, high), seen.step)


def _integers(module: GraphModule, layer: Node) -> tuple[Node, Tensor, Tensor]:
    """The weight's node, its integers and scales [out]."""
    weight = int8_weight(layer.args[1])
    assert weight is not None and isinstance(layer.args[1], Node)
    scale = tensor_at(module, weight.scale).detach().flatten()
    return layer.args[1], tensor_at(module, weight.integers).detach(), scale


def _mark_weight(module: GraphModule, layer: Node) -> None:
    """Its multiplying out becomes a mark."""
    node, integers, scale = _integers(module, layer)
    value = _held(module, node, integers, scale, 0)
    layer.args = (layer.args[0], value, *layer.args[2:])


def _mark_linear(module: GraphModule, layer: Node) -> None:
    """The weight as [in, out]. Of rows its bias goes along as integers: runtimes make a product and
    a sum of floats one operator, and find integers in that only if all three hold them."""
    node, integers, scale = _integers(module, layer)
    weight = _held(module, node, integers.t().contiguous(), scale, 1)
    source, bias = layer.args[0], layer.args[2] if len(layer.args) > 2 else None
    assert isinstance(source, Node)
    if isinstance(bias, Node) and bias.op == "get_attr" and _rank(source) == 2:
        steps = scale.double() * float(source.args[1])  # type: ignore[arg-type]
        whole = (tensor_at(module, str(bias.target)).detach().double() / steps).round()
        if whole.abs().max() < MOST:
            name = f"{layer.name}_{bias.name}"  # a tied bias has other steps in each layer
            held = _held(module, bias, whole.to(torch.int32), steps, 0, name)
            product = insert_call(module, layer, aten.addmm.default, (held, source, weight))
            layer.replace_all_uses_with(product)
            return
    product = insert_call(module, layer, aten.matmul.default, (source, weight))
    if bias is not None:
        product = insert_call(module, layer, aten.add.Tensor, (product, bias))
    layer.replace_all_uses_with(product)


def _rank(node: Node) -> int | None:
    value = node.meta.get("val")
    return value.dim() if isinstance(value, Tensor) else None


def _held(
    module: GraphModule, node: Node, integers: Tensor, scale: Tensor, axis: int, name: str = ""
) -> Node:
    name = name or node.name
    names = f"{name}_integers", f"{name}_integers_scale"
    for name, tensor in zip(names, (integers, scale.to(torch.float32)), strict=True):
        module.register_buffer(name, tensor)
    with module.graph.inserting_after(node):
        read = [module.graph.get_attr(name) for name in names]
    with module.graph.inserting_after(read[0]):
        value = module.graph.call_function(floats_mark(), (*read, axis))
    value.meta = dict(node.meta)
    return value
