"""Rounded activations, spelled out in ATen arithmetic; weights: integer_weights.py.

    clamp(round(x / scale), low, high) * scale        uint8: the integer - low

torch's own `quantized_decomposed` operators exist only after torch.ao is imported, so a `.pt2` that
holds them does not load with torch alone; `fake_quantize_per_tensor_affine` has no meta kernel and
can't be exported (torch 2.13). Plain arithmetic loads, exports, and torch.compile fuses it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch.fx import GraphModule, Node

from ...core.errors import EditError
from ..capture import tensor_at
from ..operators import aten

LAYERS = (aten.conv1d.default, aten.conv2d.default, aten.linear.default)
QMAX = 127


@dataclass(frozen=True)
class Rounded:
    """`value` is `source` in `levels` + 1 steps of `scale`, `zero_point` of them below 0."""

    value: Node
    source: Node
    scale: float
    zero_point: int
    levels: int


def quantizable(node: Node) -> bool:
    """A convolution or linear layer whose float weight nothing else reads."""
    if node.target not in LAYERS or len(node.args) < 2 or isinstance(node.args[0], (int, float)):
        return False
    weight = node.args[1]
    if not isinstance(weight, Node) or weight.op != "get_attr" or len(weight.users) != 1:
        return False
    name, module = str(weight.target), weight.graph.owning_module
    shared = [n for n in weight.graph.nodes if n.op == "get_attr" and n.target == name]
    if module is None or len(shared) != 1:
        return False
    tensor = tensor_at(module, name)
    tied = sum(p is tensor for _, p in module.named_parameters(remove_duplicate=False))
    return tensor.dtype == torch.float32 and tied <= 1


def quantize_input(
    module: GraphModule, node: Node, place: int, scale: float, zero_point: int, levels: int
) -> None:
    """Argument `place` of `node` is rounded before `node` reads it."""
    source = node.args[place] if place < len(node.args) else None
    if not isinstance(source, Node):
        raise EditError(f"argument {place} of `{node.name}` is not a tensor that can be rounded.")
    if not scale > 0 or not 0 <= zero_point <= levels <= 255:
        raise EditError(f"scale {scale}, zero point {zero_point}, {levels} levels: out of range.")
    low, high = -zero_point, levels - zero_point
    steps: tuple[tuple[Any, tuple[float, ...]], ...] = (
        (aten.div.Tensor, (scale,)),
        (aten.round.default, ()),
        (aten.clamp.default, (low, high)),
        (aten.mul.Tensor, (scale,)),
    )
    value = source
    with module.graph.inserting_before(node):
        for target, rest in steps:
            value = module.graph.call_function(target, (value, *rest))
            if "val" in source.meta:
                value.meta["val"] = source.meta["val"]
    node.args = (*node.args[:place], value, *node.args[place + 1 :])


@dataclass(frozen=True)
class RoundedDynamic:
    """`value` is `source` in 2 `half` + 1 steps of a size that each call takes from it."""

    value: Node
    source: Node
    half: int


def quantize_dynamic(module: GraphModule, node: Node, place: int, half: int) -> None:
    """Argument `place` of `node` is rounded by its own largest value, at every call."""
    source = node.args[place] if place < len(node.args) else None
    linear = node.target is aten.linear.default  # convolutions have no kernels for it
    if not linear or not isinstance(source, Node) or not 0 < half <= QMAX:
        raise EditError(f"argument {place} of `{node.name}` can't be rounded to {half} steps.")
    call = module.graph.call_function
    with module.graph.inserting_before(node):
        scale = call(aten.abs.default, (source,))
        for target, rest in (
            (aten.amax.default, ()),
            (aten.clamp_min.default, (1e-12,)),
            (aten.div.Tensor, (float(half),)),
        ):
            scale = call(target, (scale, *rest))
        steps = call(aten.round.default, (call(aten.div.Tensor, (source, scale)),))
        value = call(aten.mul.Tensor, (call(aten.clamp.default, (steps, -half, half)), scale))
    if "val" in source.meta:
        value.meta["val"] = source.meta["val"]
    node.args = (*node.args[:place], value, *node.args[place + 1 :])


def rounded_dynamic(node: object) -> RoundedDynamic | None:
    """The rounding by its own largest value that ends in `node`, if it is one."""
    steps = _steps_to(node)
    if steps is None or not isinstance(node, Node):
        return None
    value, ((scale,), (_, half), _, (divisor,)) = steps
    if scale is not divisor or not isinstance(scale, Node) or not isinstance(value, Node):
        return None
    return RoundedDynamic(node, value, int(half))


def _steps_to(node: object) -> tuple[Any, list[tuple[Any, ...]]] | None:
    """The value that div, round, clamp and mul before `node` start from, and their arguments, last
    first."""
    value, steps = node, []
    for target in (aten.mul.Tensor, aten.clamp.default, aten.round.default, aten.div.Tensor):
        if not isinstance(value, Node) or value.target is not target:
            return None
        steps.append(value.args[1:])
        value = value.args[0]
    return value, steps


def rounded(node: object) -> Rounded | None:
    """The rounding that ends in `node`, if it is one."""
    steps = _steps_to(node)
    if steps is None or not isinstance(node, Node):
        return None
    value, ((scale,), ends, _, (divisor,)) = steps
    if scale != divisor or not isinstance(scale, float) or not isinstance(value, Node):
        return None
    low, high = (int(e) for e in ends)
    return Rounded(node, value, scale, -low, high - low)
