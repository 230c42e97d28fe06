"""Operators that may be fused into the layer before them: one activation, one residual add.

Names and arguments of the oneDNN post-operations are those of torch/_inductor's mkldnn fusion.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor
from torch.fx import Node

from ..operators import aten

Scalars = tuple[float, ...]


@dataclass(frozen=True)
class Activation:
    node: Node
    name: str
    scalars: Scalars
    algorithm: str


@dataclass(frozen=True)
class Residual:
    """`add` = layer output + `other`, of one shape."""

    add: Node
    other: Node


_SIMPLE = {
    aten.relu.default: "relu",
    aten.relu_.default: "relu",
    aten.sigmoid.default: "sigmoid",
    aten.sigmoid_.default: "sigmoid",
    aten.tanh.default: "tanh",
    aten.tanh_.default: "tanh",
    aten.hardswish.default: "hardswish",
    aten.hardswish_.default: "hardswish",
    aten.silu.default: "swish",
    aten.silu_.default: "swish",
}


def only_user(node: Node) -> Node | None:
    return next(iter(node.users)) if len(node.users) == 1 else None


def activation_of(node: Node) -> Activation | None:
    """The activation that alone reads `node`, if oneDNN has it as a post-operation."""
    user = only_user(node)
    if user is None or user.op != "call_function":
        return None
    if user.target in _SIMPLE:
        return Activation(user, _SIMPLE[user.target], (), "")
    if user.target in (aten.hardtanh.default, aten.hardtanh_.default):
        given = (*user.args[1:3], *(-1.0, 1.0)[len(user.args) - 1 :])
        ends = tuple(end for end in given if isinstance(end, (int, float)))
        known = not user.kwargs and len(ends) == len(given)
        return Activation(user, "hardtanh", ends, "") if known else None
    if user.target in (aten.relu6.default, aten.relu6_.default):
        return Activation(user, "hardtanh", (0.0, 6.0), "")
    if user.target is aten.gelu.default:
        return Activation(user, "gelu", (), str(user.kwargs.get("approximate", "none")))
    return None


def residual_of(node: Node) -> Residual | None:
    """The add that alone reads `node`, where the other operand is ready before `node` runs."""
    add = only_user(node)
    if add is None or add.target not in (aten.add.Tensor, aten.add_.Tensor):
        return None
    if add.kwargs.get("alpha", 1) != 1:
        return None
    others = [a for a in add.args[:2] if a is not node]
    if len(others) != 1 or not isinstance(others[0], Node) or not _alike(node, others[0]):
        return None
    return Residual(add, others[0])


def _alike(a: Node, b: Node) -> bool:
    """In shape and number format: kernels add no others."""
    x, y = a.meta.get("val"), b.meta.get("val")
    if not isinstance(x, Tensor) or not isinstance(y, Tensor):
        return False
    return str(x.shape) == str(y.shape) and x.dtype == y.dtype
