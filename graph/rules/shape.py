"""Rules that move or reshape dimensions: cat, flatten, view, permute, squeeze, pooling, mean."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from torch.fx import Node

from ..analysis import Walk
from ..labels import Dims, Labels
from .convolution import argument


def pool2d(walk: Walk, node: Node) -> Dims:
    """Pooling over the last two dimensions; channels pass."""
    return (*walk.of(node.args[0])[:-2], None, None)


def pool1d(walk: Walk, node: Node) -> Dims:
    return (*walk.of(node.args[0])[:-1], None)


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
    gone = {a for a in _axes(given, len(dims)) if shape[a] == 1}
    for axis in gone:
        walk.labels.freeze(dims[axis], f"it is squeezed away by node `{node.name}`")
    return tuple(d for i, d in enumerate(dims) if i not in gone)


def _axes(given: Any, rank: int) -> list[int]:
    """A dim argument as non-negative numbers; None means all."""
    if given is None:
        return list(range(rank))
    return [int(a) % rank for a in (given if isinstance(given, (list, tuple)) else [given])]


def mean(walk: Walk, node: Node) -> Dims:
    """mean/sum/amax over dims: what is reduced must stay whole."""
    dims = walk.of(node.args[0])
    given = argument(node, 1, "dim")
    reduced = set(_axes(given, len(dims)))
    keep = bool(argument(node, 2, "keepdim", False))
    for axis in reduced:
        walk.labels.freeze(dims[axis], f"node `{node.name}` reduces over it")
    if keep:
        return tuple(None if i in reduced else d for i, d in enumerate(dims))
    return tuple(d for i, d in enumerate(dims) if i not in reduced)


def reshape(walk: Walk, node: Node) -> Dims:
    """view/reshape/flatten: dimensions are matched in runs of equal products.

    A run that merges (C, H, W) into one repeats each channel label H*W times. A run that splits
    a tracked dimension keeps it whole (heads come with their own rule).
    """
    source = node.args[0]
    assert isinstance(source, Node)
    before, after, dims = walk.shape(source), walk.shape(node), walk.of(source)
    result: list[Labels | None] = []
    for left, right in _runs(before, after):
        result.extend(_run(walk, node, left, right, before, after, dims))
    if len(result) != len(after):
        walk.freeze(dims, f"the shape change of node `{node.name}` is not understood")
        return tuple(None for _ in after)
    _patch_sizes(walk, node, result)
    return tuple(result)


def _runs(before: Sequence[object], after: Sequence[object]) -> list[tuple[range, range]]:
    """Smallest matching stretches of dimensions with the same number of elements."""
    runs, i, j = [], 0, 0
    while i < len(before) or j < len(after):
        a, b = i, j
        left: object = before[i] if i < len(before) else 1
        right: object = after[j] if j < len(after) else 1
        i, j = min(i + 1, len(before)), min(j + 1, len(after))
        while str(left) != str(right) and (i < len(before) or j < len(after)):
            grow_left = (
                j >= len(after)
                or (
                    i < len(before)
                    and isinstance(left, int)
                    and (not isinstance(right, int) or left < right)
                )
                or (i < len(before) and not isinstance(right, int))
            )
            if grow_left and i < len(before):
                left, i = left * before[i], i + 1  # type: ignore[operator]
            elif j < len(after):
                right, j = right * after[j], j + 1  # type: ignore[operator]
            else:
                break
        runs.append((range(a, i), range(b, j)))
    return runs


def _run(
    walk: Walk,
    node: Node,
    left: range,
    right: range,
    before: Sequence[object],
    after: Sequence[object],
    dims: Dims,
) -> list[Labels | None]:
    wide_left = [i for i in left if before[i] != 1]
    wide_right = [j for j in right if after[j] != 1]
    carried: list[Labels | None] = [None] * len(right)
    tracked = [i for i in wide_left if dims[i] is not None]
    for i in left:
        if i not in wide_left:
            walk.labels.freeze(dims[i], f"node `{node.name}` reshapes it")
    if not tracked:
        return carried
    sizes = [before[i] for i in wide_left]
    if len(wide_right) == 1 and all(isinstance(s, int) for s in sizes):
        carried[wide_right[0] - right.start] = _merged(walk, node, wide_left, before, dims)
        return carried
    for i in tracked:
        walk.labels.freeze(dims[i], f"node `{node.name}` splits it")
    return carried


def _merged(
    walk: Walk, node: Node, axes: Sequence[int], before: Sequence[object], dims: Dims
) -> Labels | None:
    tracked = [i for i in axes if dims[i] is not None]
    for i in tracked[1:]:
        walk.labels.freeze(dims[i], f"node `{node.name}` merges it into another dimension")
    labels = dims[tracked[0]]
    assert labels is not None
    at = list(axes).index(tracked[0])
    outer = math.prod(int(before[i]) for i in axes[:at])  # type: ignore[call-overload]
    inner = math.prod(int(before[i]) for i in axes[at + 1 :])  # type: ignore[call-overload]
    return np.tile(np.repeat(labels, inner), outer)


def _patch_sizes(walk: Walk, node: Node, dims: Sequence[Labels | None]) -> None:
    """Sizes written as numbers in `view(x, [b, 512])` change with the labels they count."""
    sizes = node.args[1] if len(node.args) > 1 else None
    if not isinstance(sizes, (list, tuple)):
        return
    for position, (size, labels) in enumerate(zip(sizes, dims, strict=False)):
        if labels is not None and isinstance(size, int) and size != -1:
            walk.patch(node, (1, position), labels)
