"""Spells equal operators alike, so that one rule and one patch fit them all.

`chunk` and `split` by a number become `split_with_sizes`, and negative ends of slices become counts
from the front: sizes written out can be patched one by one when channels go. Regions without
autocast are what they are anyway, and computed weights are computed once (`constants.py`).
"""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Node

from .constants import fold_computed_weights
from .operators import aten

_SPLITS = (
    aten.chunk.default,
    aten.split.Tensor,
    aten.unsafe_chunk.default,
    aten.unsafe_split.Tensor,
    aten.tensor_split.sections,
    aten.tensor_split.indices,
)


def canonicalize(module: GraphModule) -> GraphModule:
    """Rewrite `module` in place, without changing what it computes, and return it."""
    for node in list(module.graph.nodes):
        if node.target is torch.ops.higher_order.wrap_with_autocast:
            _inline(module, node)
    for node in list(module.graph.nodes):
        if node.target in _SPLITS:
            _write_sizes(module, node)
        elif node.target is aten.slice.Tensor:
            _count_from_front(node)
    fold_computed_weights(module)
    module.recompile()
    return module


def _inline(module: GraphModule, node: Node) -> None:
    """autocast(device, dtype, enabled, cache, region, *inputs): a region that switches it off."""
    _, _, enabled, _, region, *inputs = node.args
    if enabled or not isinstance(region, Node):
        return
    inner = getattr(module, str(region.target)).graph
    if any(n.op == "get_attr" for n in inner.nodes):  # it would be looked up in the wrong module
        return
    placeholders = [n for n in inner.nodes if n.op == "placeholder"]
    copies: dict[Node, Any] = dict(zip(placeholders, inputs, strict=True))
    with module.graph.inserting_before(node):
        results = module.graph.graph_copy(inner, copies)
    for user in list(node.users):
        assert user.target is operator.getitem and isinstance(results, (tuple, list))
        user.replace_all_uses_with(results[user.args[1]])  # type: ignore[index]
        module.graph.erase_node(user)
    module.graph.erase_node(node)
    if not region.users:
        module.graph.erase_node(region)


def _write_sizes(module: GraphModule, node: Node) -> None:
    pieces = node.meta.get("val")
    axis = int(node.args[2] if len(node.args) > 2 else node.kwargs.get("dim", 0))  # type: ignore[arg-type]
    sizes = [piece.shape[axis] for piece in pieces] if isinstance(pieces, (list, tuple)) else []
    if not sizes or not all(isinstance(size, int) for size in sizes):
        return
    with module.graph.inserting_before(node):
        new = module.graph.call_function(aten.split_with_sizes.default, (node.args[0], sizes, axis))
    new.meta = dict(node.meta)
    node.replace_all_uses_with(new)
    module.graph.erase_node(node)


def _count_from_front(node: Node) -> None:
    source = node.args[0]
    value = source.meta.get("val") if isinstance(source, Node) else None
    if not isinstance(value, Tensor) or node.kwargs:
        return
    args = [*node.args, *(0, None, None, 1)[len(node.args) - 1 :]]
    size = value.shape[args[1]]  # type: ignore[index]
    if not isinstance(size, int):
        return
    for at in (2, 3):
        bound = args[at]
        if isinstance(bound, int) and bound < 0:
            args[at] = max(0, bound + size)
    node.args = tuple(args)
