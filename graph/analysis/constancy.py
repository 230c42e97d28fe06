"""Units of a channel group that are the same number whatever the model is given."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from torch.fx import GraphModule, Node

from ..capture import tensor_at
from ..layers import Layer, layers_of
from ..operators import aten
from .groups import Group, Member
from .rules import elementwise, indexing, reshape, shape
from .rules.table import RULES

UnitMask: TypeAlias = NDArray[np.bool_]
_PASS = {
    elementwise.unary, elementwise.broadcast, shape.cat, shape.permute, shape.transpose,
    shape.squeeze, shape.unsqueeze, reshape.reshape, indexing.split, indexing.getitem,
    RULES[aten.mean.dim], RULES[aten.max_pool1d.default], RULES[aten.max_pool2d.default],
    RULES[aten.max_pool3d.default],
}  # fmt: skip


def zero_slices(module: GraphModule, member: Member) -> UnitMask:
    """[units]: everything that a unit owns of the member is exactly zero."""
    tensor = tensor_at(module, member.param).detach()
    others = [d for d in range(tensor.dim()) if d != member.dim]
    used = tensor.ne(0).sum(others).cpu().numpy() if others else tensor.ne(0).cpu().numpy()
    return np.array([not used[list(unit)].any() for unit in member.indices])


def varying(module: GraphModule, group: Group) -> dict[str, UnitMask]:
    """By node that holds the group's units: which of them depend on the model's input.

    A unit no longer does after a weight row or a batch norm's scale of zeros. Only operators that
    are known to pass units on one by one (`_PASS`) keep what is known.
    """
    cut = {
        id(tensor_at(module, m.param)): zero_slices(module, m) for m in group.members if m.dim == 0
    }
    layers = {layer.node: layer for layer in layers_of(module)}
    masks: dict[Node, UnitMask | None] = {}
    for node in module.graph.nodes:
        if node.op == "get_attr":
            own = id(tensor_at(module, str(node.target))) in cut
            masks[node] = np.zeros(group.size, bool) if own else None
        elif node in layers:
            masks[node] = _after_layer(module, layers[node], cut, masks)
        else:
            masks[node] = _after(module, node, cut, masks, group.size)
    return {n.name: units for n, units in masks.items() if units is not None}


def _after_layer(
    module: GraphModule,
    layer: Layer,
    cut: Mapping[int, UnitMask],
    masks: Mapping[Node, UnitMask | None],
) -> UnitMask | None:
    weight = tensor_at(module, layer.weight)
    zero = cut.get(id(weight))
    if zero is None:
        return None
    source = masks[layer.source]
    # Depthwise: what a unit gets is its own past alone.
    alone = layer.groups > 1 and layer.groups >= weight.shape[1] and source is not None
    return ~zero & source if alone and source is not None else ~zero


def _after(
    module: GraphModule,
    node: Node,
    cut: Mapping[int, UnitMask],
    masks: Mapping[Node, UnitMask | None],
    size: int,
) -> UnitMask | None:
    inputs = [masks[n] for n in node.all_input_nodes]
    known = [units for units in inputs if units is not None]
    if node.target is aten.batch_norm.default and isinstance(node.args[1], Node):
        scale = cut.get(id(tensor_at(module, str(node.args[1].target))))
        source = masks[node.args[0]]  # type: ignore[index]
        return source if scale is None or source is None else source & ~scale
    if not known:
        return None
    rule = RULES.get(node.target)
    # In a concatenation other groups stand beside this one; elsewhere they mix with it.
    if rule in _PASS and (rule is shape.cat or len(known) == len(inputs)):
        either: UnitMask = np.logical_or.reduce(known)
        return either
    return np.ones(size, bool)
