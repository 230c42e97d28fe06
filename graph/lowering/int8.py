"""Lowering of the int8 form to oneDNN's integer kernels; adjacent layers exchange uint8
activations.

Roundings become quantize/dequantize pairs, move up through what passes integers on unchanged, and
end as the output type of the layer before them. Signatures are those of torch/_inductor's
quantization lowering.
"""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Node

from ..capture import tensor_at
from ..edits.integer_weights import int8_weight
from ..edits.quantization import QMAX, rounded, rounded_dynamic
from ..operators import Arguments, Operator, aten, onednn
from ..shown_sizes import ShownSizes
from .fusing import Activation, activation_of, only_user, residual_of
from .kernels import convolves_int8, groups_like, multiplies_int8, post_of, sums_whole_bytes
from .packing import HEIGHT, LAYER, Packs, as_image, conv_arguments, insert_call, replace, tidy

pooled = torch.ops.quantized.max_pool2d.default
_JOINED: Operator = aten.cat.default
_RELUS = (aten.relu.default, aten.relu_.default)
_PASSING = (
    aten.max_pool2d.default, aten.flatten.using_ints, aten.view.default, aten.reshape.default,
    aten.squeeze.dims, aten.unsqueeze.default, aten.permute.default, aten.transpose.int,
)  # fmt: skip
_CONVOLUTIONS = (aten.conv1d.default, aten.conv2d.default)
_LAYERS = (*_CONVOLUTIONS, aten.linear.default)


def quantize(x: Tensor, scale: float, zero_point: int, levels: int) -> Tensor:
    """uint8, images channels-last: the kernels want them so, and in-place sums insist."""
    steps = (x / scale).round_().clamp_(-zero_point, levels - zero_point).add_(zero_point)
    layout = torch.channels_last if x.dim() == 4 else torch.contiguous_format
    return steps.to(torch.uint8, memory_format=layout)


def quantize_now(x: Tensor, half: int) -> tuple[Tensor, Tensor]:
    """uint8 with zero point `half`, and the scale."""
    scale = x.abs().amax().clamp_min_(1e-12).div_(half)
    return (x / scale).round_().add_(half).to(torch.uint8), scale


def dequantize(x: Tensor, scale: float | Tensor, zero_point: int) -> Tensor:
    return x.to(torch.float32).sub_(zero_point).mul_(scale)


def lower_int8(module: GraphModule, sizes: ShownSizes) -> None:
    """In place: layers with int8 weights and inputs run on integers, the rest stays as it is.

    `sizes`: those that kernels are laid out for.
    """
    layers = [n for n in module.graph.nodes if n.target in _LAYERS and int8_weight(n.args[1])]
    if layers and runs_here(module):
        _split(module)
        for node in list(module.graph.nodes):
            if node.target is quantize:
                _move_up(module, node)
        packs = Packs(module)
        for node in layers:
            if _reads_integers(node) and _takes(node):
                _lower(module, node, packs, sizes)
        tidy(module)
        _keep_accumulated(module)


def runs_here(module: GraphModule) -> bool:
    """x86 only; without VNNI sums of two 8-bit products overflow 16 bits, 7-bit inputs do not."""
    if not hasattr(onednn, "qconv2d_pointwise") or not torch.cpu._is_avx2_supported():
        return False
    levels = [r.levels for r in map(rounded, module.graph.nodes) if r is not None]
    levels += [2 * r.half for r in map(rounded_dynamic, module.graph.nodes) if r is not None]
    return max(levels, default=0) <= largest_level()


def largest_level() -> int:
    """Steps above 0 that activations may have on this machine."""
    return 255 if sums_whole_bytes() else QMAX


def _split(module: GraphModule) -> None:
    """Every rounding as quantize and dequantize; one quantize for all that read the same value."""
    quantized: dict[tuple[Node, float, int, int], Node] = {}
    for node in list(module.graph.nodes):
        rounding = rounded(node)
        if rounding is None:
            continue
        key = (rounding.source, rounding.scale, rounding.zero_point, rounding.levels)
        integers = None if _mutated(rounding.source) else quantized.get(key)
        if integers is None:
            integers = quantized[key] = insert_call(module, node, quantize, key)
        arguments = (integers, rounding.scale, rounding.zero_point)
        replace(module, node, dequantize, arguments)
    _split_dynamic(module)
    tidy(module)


def _split_dynamic(module: GraphModule) -> None:
    quantized: dict[tuple[Node, int], tuple[Node, Node]] = {}
    for node in list(module.graph.nodes):
        rounding = rounded_dynamic(node)
        if rounding is None:
            continue
        key = (rounding.source, rounding.half)
        if key not in quantized or _mutated(rounding.source):
            both = insert_call(module, node, quantize_now, key)
            quantized[key] = (
                insert_call(module, node, operator.getitem, (both, 0)),
                insert_call(module, node, operator.getitem, (both, 1)),
            )
        replace(module, node, dequantize, (*quantized[key], rounding.half))


def _mutated(node: Node) -> bool:
    """Something writes into the value, so it matters when it is read."""
    schemas = [getattr(user.target, "_schema", None) for user in node.users]
    return any(schema is not None and schema.is_mutable for schema in schemas)


def _move_up(module: GraphModule, node: Node) -> None:
    """Round before what passes integers on unchanged: then that runs on a quarter of the bytes."""
    source, scale, zero_point, levels = node.args
    if not isinstance(source, Node) or set(source.users) != {node}:
        return
    rest = (scale, zero_point, levels)
    if source.target in _RELUS and zero_point == 0:  # uint8 ends at 0 by itself
        before = source.args[0]
        if isinstance(before, Node) and set(before.users) == {source}:
            node.args = (before, *rest)
            module.graph.erase_node(source)
            _move_up(module, node)
    elif source.target in _PASSING:
        first = insert_call(module, source, quantize, (source.args[0], *rest))
        moved = insert_call(module, source, *_on_integers(source, first))
        _put(module, node, moved)
        _move_up(module, first)
    elif source.target is _JOINED:
        parts = [insert_call(module, source, quantize, (p, *rest)) for p in source.args[0]]  # type: ignore[union-attr]
        moved = insert_call(module, source, _JOINED, (parts, *source.args[1:]))
        _put(module, node, moved)
        for part in parts:
            _move_up(module, part)


def _on_integers(node: Node, read: Node) -> tuple[Operator, Arguments]:
    """Operator and arguments of one of `_PASSING` on uint8 `read`."""
    if node.target is not aten.max_pool2d.default:
        assert callable(node.target)
        return node.target, (read, *node.args[1:])
    # aten's own counts places in uint8 and refuses images of more than 255 pixels (torch 2.13).
    given = dict(enumerate(node.args))
    kernel, stride = _pair(given[1]), _pair(given.get(2) or given[1])
    padding, dilation = _pair(given.get(3, 0)), _pair(given.get(4, 1))
    return pooled, (read, kernel, stride, padding, dilation, bool(given.get(5, False)))


def _pair(value: Any) -> list[int]:
    items = [value] if isinstance(value, int) else list(value)
    return items * 2 if len(items) == 1 else items


def _put(module: GraphModule, node: Node, instead: Node) -> None:
    """`instead` takes the place of a quantize, whose source goes with it."""
    source = node.args[0]
    assert isinstance(source, Node)
    node.replace_all_uses_with(instead)
    module.graph.erase_node(node)
    module.graph.erase_node(source)


def _reads_integers(node: Node) -> bool:
    read = node.args[0]
    padded = len(node.args) > 4 and isinstance(node.args[4], str)
    return isinstance(read, Node) and read.target is dequantize and not padded


def _lower(module: GraphModule, node: Node, packs: Packs, sizes: ShownSizes) -> None:
    is_conv, signal = node.target in _CONVOLUTIONS, node.target is aten.conv1d.default
    other, add, act = _fused(node)
    tail = act.node if act else add or node
    user = only_user(tail)
    out = user if user is not None and user.target is quantize else None
    name, numbers, algorithm = post_of(act)
    scalars = list(numbers)
    start, last = _inputs(module, node, tail, packs, sizes), out or tail
    output = (*out.args[1:3], torch.uint8) if out else (1.0, 0, torch.float32)
    if other is not None:
        scale, zero = (other.args[1], other.args[2]) if out else (1.0, 0)
        start = (*start[:6], other.args[0] if out else other, *start[6:])
        rest = (*output, scale, zero, "sum", 1.0, name, scalars, algorithm)
        call = insert_call(module, tail, onednn.qconv2d_pointwise.binary, (*start, *rest))
    else:
        kernel = onednn.qconv2d_pointwise if is_conv else onednn.qlinear_pointwise
        overload = kernel.tensor if isinstance(start[1], Node) else kernel.default
        call = insert_call(module, tail, overload, (*start, *output, name, scalars, algorithm))
    call.meta[LAYER] = node.name
    if signal:
        call = insert_call(module, tail, aten.squeeze.dim, (call, HEIGHT))
    if out is not None and out.args[3] < 255:  # type: ignore[operator]  # the kernel ends there
        call = insert_call(module, tail, aten.clamp_max.default, (call, out.args[3]))
    last.replace_all_uses_with(call)


def _fused(node: Node) -> tuple[Node | None, Node | None, Activation | None]:
    """Integers that a sum adds, the sum, an activation: the most of it that the kernel takes."""
    residual = residual_of(node) if node.target is aten.conv2d.default else None
    # The kernel that sums wants integers on both sides, and scales that are numbers: those of
    # `quantize_now` are tensors, known at the call only.
    if (
        residual is not None
        and residual.other.target is dequantize
        and not isinstance(node.args[0].args[1], Node)  # type: ignore[union-attr]
        and _takes(node, summed=True)
    ):
        act = activation_of(residual.add)
        fits = act is not None and _takes(node, act, summed=True)
        return residual.other, residual.add, act if fits else None
    act = activation_of(node)
    return None, None, act if act is not None and _takes(node, act) else None


def _takes(node: Node, act: Activation | None = None, summed: bool = False) -> bool:
    if node.target not in _CONVOLUTIONS:
        return multiplies_int8(post_of(act))
    weight, module = int8_weight(node.args[1]), node.graph.owning_module
    assert weight is not None and module is not None
    channels = len(tensor_at(module, weight.integers))
    groups = groups_like(conv_arguments(node)[-1], channels)
    return convolves_int8(groups, post_of(act), summed)


def _inputs(
    module: GraphModule, node: Node, before: Node, packs: Packs, sizes: ShownSizes
) -> Arguments:
    """The kernels' first arguments: integers, scales, packed weight, bias, strides."""
    read, int8 = node.args[0], int8_weight(node.args[1])
    assert isinstance(read, Node) and int8 is not None
    integers, scale, zero_point = read.args
    weight, scales = (tensor_at(module, n).detach() for n in (int8.integers, int8.scale))
    weight, scales = weight.contiguous(), scales.reshape(-1)
    signal = node.target is aten.conv1d.default  # runs as an image of height 1
    if signal:
        assert isinstance(integers, Node)
        weight, integers = weight.unsqueeze(2), as_image(module, integers, before)
    if node.target in _CONVOLUTIONS:
        bias, *strides = conv_arguments(node)[2:]
        shape = shape_read(read, sizes, 1, weight.shape[1] * strides[-1])
        if signal and shape is not None:
            shape = [*shape[:2], 1, *shape[2:]]
        stride, padding, dilation, groups = strides
        packed = onednn.qconv_prepack(
            weight, scales, scale, zero_point, stride, padding, dilation, groups, shape
        )
    else:
        bias, strides = (node.args[2] if len(node.args) > 2 else None), []
        packed = onednn.qlinear_prepack(weight, shape_read(read, sizes, -1, weight.shape[1]))
    if isinstance(scale, Node):  # known at the call only, and then both are tensors
        zero_point = packs.add(torch.tensor(zero_point), before)
    zeros = torch.zeros(len(scales), dtype=torch.int64)
    added = [packs.add(t, before) for t in (packed, scales, zeros)]
    return (integers, scale, zero_point, *added, bias, *strides)


def shape_read(node: Node, sizes: ShownSizes, axis: int, channels: int) -> list[int] | None:
    """Of a layer's input. Example values are those of the capture, before channels were pruned."""
    shape = sizes.of_node(node)
    if shape is not None:
        shape[axis] = channels
    return shape


def _keep_accumulated(module: GraphModule) -> None:
    """Sums are written into their residual, which is copied where something still needs it."""
    order = {node: place for place, node in enumerate(module.graph.nodes)}
    for node in order:
        if node.target is not onednn.qconv2d_pointwise.binary:
            continue
        residual = node.args[6]
        assert isinstance(residual, Node)
        later = any(order[user] > order[node] for user in residual.users)
        fresh = residual.target in (quantize, dequantize, pooled, aten.clamp_max.default)
        fresh = fresh or "pointwise" in str(residual.target)
        viewed = any(user.target in _PASSING for user in residual.users)
        if later or viewed or not fresh or residual is node.args[0]:
            with module.graph.inserting_before(node):
                copied = module.graph.call_function(
                    aten.clone.default, (residual,), {"memory_format": torch.channels_last}
                )
            node.args = (*node.args[:6], copied, *node.args[7:])
