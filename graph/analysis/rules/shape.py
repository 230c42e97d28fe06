"""Rules that move, join or reduce dimensions: cat, permute, squeeze, pooling, mean."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch.fx import Node

from ...operators import aten
from ..labels import Dims, Labels
from ..walk import Parts, Rule, Walk
from .arguments import argument, axes, integer
from .response import is_response_norm


def pool(spatial_dims: int, results: int = 1) -> Rule:
    """A rule for what mixes the last `spatial_dims` (pooling, resizing); channels pass."""

    def rule(walk: Walk, node: Node) -> Dims | Parts:
        dims = walk.of(node.args[0])
        out: Dims = (*dims[:-spatial_dims], *whole_space(walk, node, dims[-spatial_dims:]))
        return out if results == 1 else [out] * results

    return rule


def whole_space(walk: Walk, node: Node, dims: Dims) -> Dims:
    """Spatial dimensions are never pruned, even when they hold pooled features."""
    walk.freeze(dims, f"node `{node.name}` mixes neighbors along it")
    return (None,) * len(dims)


def cat(walk: Walk, node: Node) -> Dims:
    """cat(tensors, dim): labels follow each other along `dim`, the rest is aligned."""
    parts = node.args[0]
    assert isinstance(parts, (list, tuple))
    dims = [walk.of(part) for part in parts]
    rank = len(dims[0])
    axis = int(argument(node, 1, "dim", 0)) % rank  # type: ignore[call-overload]
    result: list[Labels | None] = []
    for position in range(rank):
        column = [d[position] for d in dims]
        if position == axis:
            result.append(
                _concatenated(walk, [p for p in parts if isinstance(p, Node)], column, axis)
            )
        else:
            merged = column[0]
            for other in column[1:]:
                merged = walk.labels.join(
                    merged, other, "it is concatenated with a whole dimension"
                )
            result.append(merged)
    return tuple(result)


def _concatenated(
    walk: Walk, parts: Sequence[Node], column: Sequence[Labels | None], axis: int
) -> Labels | None:
    if all(labels is None for labels in column):
        return None
    pieces = []
    for part, labels in zip(parts, column, strict=True):
        if labels is None:
            size = walk.size(part, axis)
            if size is None:
                return None
            labels = walk.labels.new(size)
            walk.labels.freeze(labels, "it is part of the model's input")
        pieces.append(labels)
    return np.concatenate(pieces)


def permute(walk: Walk, node: Node) -> Dims:
    dims = walk.of(node.args[0])
    order = node.args[1]
    assert isinstance(order, (list, tuple))
    return tuple(dims[int(i)] for i in order)  # type: ignore[arg-type]


def transpose(walk: Walk, node: Node) -> Dims:
    dims = list(walk.of(node.args[0]))
    a, b = int(node.args[1]), int(node.args[2])  # type: ignore[arg-type]
    dims[a], dims[b] = dims[b], dims[a]
    return tuple(dims)


def movedim(walk: Walk, node: Node) -> Dims:
    """movedim(x, sources, destinations): the others keep their order."""
    dims = walk.of(node.args[0])
    sources, destinations = (axes(given, len(dims)) for given in node.args[1:3])
    rest = [labels for axis, labels in enumerate(dims) if axis not in sources]
    for to, source in sorted(zip(destinations, sources, strict=True)):
        rest.insert(to, dims[source])
    return tuple(rest)


def ranked(dim_at: int) -> Rule:
    """A rule for sort, topk (values, places): along `dim` every index counts."""

    def rule(walk: Walk, node: Node) -> Parts:
        dims = walk.of(node.args[0])
        # sort.stable has its dimension one place later, by name.
        given = node.kwargs.get("dim", node.args[dim_at] if len(node.args) > dim_at else -1)
        axis = integer(given) % len(dims)
        walk.labels.freeze(dims[axis], f"node `{node.name}` orders it")
        return [(*dims[:axis], None, *dims[axis + 1 :])] * 2

    return rule


def swap_last(walk: Walk, node: Node) -> Dims:
    dims = walk.of(node.args[0])
    return (*dims[:-2], dims[-1], dims[-2]) if len(dims) > 1 else dims


def reverse(walk: Walk, node: Node) -> Dims:
    return tuple(reversed(walk.of(node.args[0])))


def glu(walk: Walk, node: Node) -> Dims:
    """glu(x, dim): a unit is an index of the first half and its gate in the second."""
    dims = walk.of(node.args[0])
    axis = integer(argument(node, 1, "dim", -1)) % len(dims)
    labels = dims[axis]
    if labels is not None:
        first, second = labels.reshape(2, -1)
        labels = walk.labels.join(first, second, "")
    return (*dims[:axis], labels, *dims[axis + 1 :])


def unsqueeze(walk: Walk, node: Node) -> Dims:
    dims = list(walk.of(node.args[0]))
    at = int(node.args[1])  # type: ignore[arg-type]
    dims.insert(at if at >= 0 else at + len(dims) + 1, None)
    return tuple(dims)


def squeeze(walk: Walk, node: Node) -> Dims:
    dims = walk.of(node.args[0])
    given = node.args[1] if len(node.args) > 1 else None
    source = node.args[0]
    assert isinstance(source, Node)
    shape = walk.shape(source)
    gone = {a for a in axes(given, len(dims)) if shape[a] == 1}
    for axis in gone:
        walk.labels.freeze(dims[axis], f"it is squeezed away by node `{node.name}`")
    return tuple(d for i, d in enumerate(dims) if i not in gone)


def reduction(dim_at: int = 1, keep_at: int = 2, results: int = 1) -> Rule:
    """A rule for mean, sum, max, norm ...: what is reduced must stay whole."""

    def rule(walk: Walk, node: Node) -> Dims | Parts:
        dims = walk.of(node.args[0])
        reduced = set(axes(argument(node, dim_at, "dim"), len(dims)))
        kept = bool(argument(node, keep_at, "keepdim", False))
        # A root mean square norm written out takes the mean of squares and keeps the dimension.
        norm = walk.prune_normalized_dims and kept and node.target is aten.mean.dim
        response = len(reduced) == 1 and kept and node.target is aten.mean.dim
        for axis in reduced if not norm else ():
            if response and is_response_norm(walk, node, dims[axis]):
                continue
            walk.labels.freeze(dims[axis], f"node `{node.name}` reduces over it")
        if kept:
            out: Dims = tuple(None if i in reduced else d for i, d in enumerate(dims))
        else:
            out = tuple(d for i, d in enumerate(dims) if i not in reduced)
        return out if results == 1 else [out] * results

    return rule


def fresh(walk: Walk, node: Node) -> Dims:
    """arange, zeros, full ...: made from numbers, stays whole."""
    return tuple(None for _ in walk.shape(node))
