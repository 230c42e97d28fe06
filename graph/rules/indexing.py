"""Rules that pick indices: split, slice, select, gather, embedding."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch.fx import Node

from ..analysis import Parts, RuleError, Walk
from ..labels import Dims, Labels
from .arguments import argument, axes, integer
from .sizes import free_size


def split(walk: Walk, node: Node) -> Parts:
    """split_with_sizes(x, sizes, dim): each piece has its stretch of the labels."""
    dims, sizes = walk.of(node.args[0]), node.args[1]
    if not isinstance(sizes, (list, tuple)):
        raise RuleError("a split by a size known at run time")
    axis = integer(argument(node, 2, "dim", 0)) % len(dims)
    labels = dims[axis]
    if labels is None:
        return [dims for _ in sizes]
    parts, start = [], 0
    for number, size in enumerate(sizes):
        piece = labels[start : start + integer(size)]
        walk.patch(node, (1, number), piece)
        parts.append((*dims[:axis], piece, *dims[axis + 1 :]))
        start += integer(size)
    return parts


def unbind(walk: Walk, node: Node) -> Parts:
    dims = walk.of(node.args[0])
    source = node.args[0]
    assert isinstance(source, Node)
    axis = integer(argument(node, 1, "dim", 0)) % len(dims)
    walk.labels.freeze(dims[axis], f"node `{node.name}` takes it apart index by index")
    count = walk.size(source, axis)
    if count is None:
        raise RuleError("unbinding a size known at run time")
    return [(*dims[:axis], *dims[axis + 1 :])] * count


def getitem(walk: Walk, node: Node) -> Dims:
    """One of several results."""
    source, index = node.args
    parts = walk.parts.get(source) if isinstance(source, Node) else None
    if parts is not None and isinstance(index, int):
        return parts[index]
    return tuple(None for _ in walk.shape(node))


def select(walk: Walk, node: Node) -> Dims:
    """select(x, dim, index): the dimension goes; picking by number needs it whole."""
    dims = walk.of(node.args[0])
    axis = integer(argument(node, 1, "dim", 0)) % len(dims)
    walk.labels.freeze(dims[axis], f"node `{node.name}` picks one of it by number")
    return (*dims[:axis], *dims[axis + 1 :])


def slice_(walk: Walk, node: Node) -> Dims:
    """slice(x, dim, start, end, step), the ends counted from the front."""
    dims = walk.of(node.args[0])
    axis = integer(argument(node, 1, "dim", 0)) % len(dims)
    labels = dims[axis]
    if labels is None:
        return dims
    start, end, step = (
        argument(node, 2, "start"),
        argument(node, 3, "end"),
        argument(node, 4, "step", 1),
    )
    start = 0 if start is None else start
    end = len(labels) if end is None else end
    if node.kwargs or not isinstance(start, int) or not isinstance(end, int) or step != 1:
        raise RuleError("a slice with a step or an end known at run time")
    if start:
        walk.patch(node, (2,), labels[:start])
    if end < len(labels):
        walk.patch(node, (3,), labels[:end])
    return (*dims[:axis], labels[start:end], *dims[axis + 1 :])


def index(walk: Walk, node: Node) -> Dims:
    """x[:, i]: one tensor of indices takes the place of one dimension."""
    dims, picks = walk.of(node.args[0]), node.args[1]
    assert isinstance(picks, (list, tuple))
    tensors = [i for i, pick in enumerate(picks) if isinstance(pick, Node)]
    if len(tensors) != 1:
        raise RuleError("an index of several tensors")
    axis = tensors[0]
    pick = picks[axis]
    assert isinstance(pick, Node)
    if pick.meta["val"].dtype == torch.bool:
        raise RuleError("an index by a mask")
    walk.labels.freeze(dims[axis], f"node `{node.name}` picks of it by number")
    walk.freeze(walk.of(pick), f"node `{node.name}` reads numbers from it")
    return (*dims[:axis], *walk.of(pick), *dims[axis + 1 :])


def index_select(walk: Walk, node: Node) -> Dims:
    dims = walk.of(node.args[0])
    axis = integer(node.args[1]) % len(dims)
    walk.labels.freeze(dims[axis], f"node `{node.name}` picks of it by number")
    return (*dims[:axis], None, *dims[axis + 1 :])


def gather(walk: Walk, node: Node) -> Dims:
    """gather(x, dim, index): every index of the result is a place of x, so both stay whole."""
    for used in (node.args[0], node.args[2]):
        walk.freeze(walk.of(used), f"node `{node.name}` picks of it by number")
    return tuple(None for _ in walk.shape(node))


def embedding(walk: Walk, node: Node) -> Dims:
    """embedding(weight, indices): rows are picked by number, columns are the width."""
    weight, picks = walk.of(node.args[0]), walk.of(node.args[1])
    walk.labels.freeze(weight[0], "its rows are picked by number")
    walk.freeze(picks, f"node `{node.name}` reads numbers from it")
    return (*picks, weight[1])


def expand(walk: Walk, node: Node) -> Dims:
    """expand(x, sizes): a dimension of size 1 becomes longer, new ones come in front."""
    source, sizes = node.args[0], node.args[1]
    assert isinstance(source, Node) and isinstance(sizes, (list, tuple))
    dims, before, after = walk.of(source), walk.shape(source), walk.shape(node)
    front = len(after) - len(dims)
    out = [free_size(walk, node, (1, place), sizes[place]) for place in range(front)]
    for axis, labels in enumerate(dims):
        if labels is not None and str(before[axis]) != str(after[front + axis]):
            walk.labels.freeze(labels, f"it is broadcast by node `{node.name}`")
            labels = None
        size = sizes[front + axis]
        if labels is not None and isinstance(size, int) and size != -1:
            walk.patch(node, (1, front + axis), labels)
        elif labels is None and before[axis] == 1:
            labels = free_size(walk, node, (1, front + axis), size)
        out.append(labels)
    return tuple(out)


def repeat(walk: Walk, node: Node) -> Dims:
    """repeat(x, times): the labels come again as often as the indices."""
    times = node.args[1]
    assert isinstance(times, (list, tuple))
    dims = walk.of(node.args[0])
    padded: Sequence[Labels | None] = (*[None] * (len(times) - len(dims)), *dims)
    return tuple(
        None if labels is None else np.tile(labels, integer(count))
        for labels, count in zip(padded, times, strict=True)
    )


def repeat_interleave(walk: Walk, node: Node) -> Dims:
    dims = list(walk.of(node.args[0]))
    count, dim = node.args[1], argument(node, 2, "dim")
    if not isinstance(count, int) or not isinstance(dim, int):
        raise RuleError("a repetition by a tensor")
    labels = dims[dim]
    dims[dim] = None if labels is None else np.repeat(labels, count)
    return tuple(dims)


def stack(walk: Walk, node: Node) -> Dims:
    """stack(tensors, dim): tensors of one shape, a new dimension between."""
    parts = node.args[0]
    assert isinstance(parts, (list, tuple))
    merged = list(walk.of(parts[0]))
    for part in parts[1:]:
        for axis, labels in enumerate(walk.of(part)):
            merged[axis] = walk.labels.join(
                merged[axis],
                labels,
                f"node `{node.name}` stacks it on a dimension that stays whole",
            )
    at = integer(argument(node, 1, "dim", 0)) % (len(merged) + 1)
    return (*merged[:at], None, *merged[at:])


def whole_axes(walk: Walk, node: Node) -> Dims:
    """roll, flip: the moved dimensions stay whole."""
    dims = walk.of(node.args[0])
    place = 2 if "roll" in str(node.target) else 1
    for axis in axes(argument(node, place, "dims"), len(dims)):
        walk.labels.freeze(dims[axis], f"node `{node.name}` moves its indices")
    return dims


def pad(walk: Walk, node: Node) -> Dims:
    """pad(x, (last_left, last_right, ...)): padded dimensions stay whole."""
    dims, amounts = list(walk.of(node.args[0])), node.args[1]
    assert isinstance(amounts, (list, tuple))
    for pair in range(len(amounts) // 2):
        if amounts[2 * pair] != 0 or amounts[2 * pair + 1] != 0:
            axis = len(dims) - 1 - pair
            walk.labels.freeze(dims[axis], f"node `{node.name}` pads it")
            dims[axis] = None
    return tuple(dims)


def pixel_shuffle(walk: Walk, node: Node) -> Dims:
    """(B, C r r, H, W) -> (B, C, r H, r W): a unit is the r r channels of one output channel."""
    dims, factor = walk.of(node.args[0]), integer(node.args[1])
    labels = dims[-3]
    if labels is not None:
        rows = labels.reshape(-1, factor * factor)
        for row in rows:
            walk.labels.tie_all(row)
        labels = rows[:, 0].copy()
    return (*dims[:-3], labels, None, None)


def pixel_unshuffle(walk: Walk, node: Node) -> Dims:
    dims, factor = walk.of(node.args[0]), integer(node.args[1])
    labels = dims[-3]
    return (
        *dims[:-3],
        None if labels is None else np.repeat(labels, factor * factor),
        None,
        None,
    )
