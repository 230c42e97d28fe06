"""Rules that pick indices: split, slice, select, gather, embedding."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch.fx import Node

from ..labels import Dims, Labels
from ..walk import Parts, RuleError, Walk
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
    if node.kwargs or not all(isinstance(n, int) for n in (start, end, step)):
        raise RuleError("a slice whose ends or step are known at run time")
    start, end, step = integer(start), min(integer(end), len(labels)), integer(step)
    if step > 1:
        return (*dims[:axis], _strided(walk, labels, start, end, step), *dims[axis + 1 :])
    if start:
        walk.patch(node, (2,), labels[:start])
    if end < len(labels):
        walk.patch(node, (3,), labels[:end])
    return (*dims[:axis], labels[start:end], *dims[axis + 1 :])


def slice_scatter(walk: Walk, node: Node) -> Dims:
    """slice_scatter(x, part, dim, 0, end, step): `part` lies over every `step`-th of x.

    Without a step it is a concatenation by now (graph/functional.py).
    """
    dims, part = list(walk.of(node.args[0])), walk.of(node.args[1])
    axis = integer(argument(node, 2, "dim", 0)) % len(dims)
    step, labels = integer(argument(node, 5, "step", 1)), dims[axis]
    start, end = argument(node, 3, "start") or 0, argument(node, 4, "end")
    reason = f"node `{node.name}` writes it over a dimension that stays whole"
    if labels is not None and step == 1:
        raise RuleError("a part written between ends")
    last = len(labels or ()) if end is None else integer(end)
    here = None if labels is None else _strided(walk, labels, integer(start), last, step)
    for at, (own, other) in enumerate(zip(dims, part, strict=True)):
        joined = walk.labels.join(here if at == axis else own, other, reason)
        dims[at] = own if at == axis else joined
    return tuple(dims)


def _strided(walk: Walk, labels: Labels, start: int, end: int, step: int) -> Labels:
    """Every `step`-th index: a unit is the stretch of `step` indices that all strides share."""
    if len(labels) % step or start >= step or end < len(labels):
        raise RuleError("a slice with a step that leaves a rest")
    for stretch in labels.reshape(-1, step):
        walk.labels.tie_all(stretch)
    return labels[start::step]


def index(walk: Walk, node: Node) -> Dims:
    """x[:, i, j]: what tensors of indices give takes the place of the dimensions they pick from."""
    dims, picks = walk.of(node.args[0]), node.args[1]
    assert isinstance(picks, (list, tuple))
    by_axis = {axis: pick for axis, pick in enumerate(picks) if isinstance(pick, Node)}
    if any(pick.meta["val"].dtype == torch.bool for pick in by_axis.values()):
        raise RuleError("an index by a mask")
    for axis, pick in by_axis.items():
        walk.labels.freeze(dims[axis], f"node `{node.name}` picks of it by number")
        walk.freeze(walk.of(pick), f"node `{node.name}` reads numbers from it")
    picked: Dims = (None,) * max(len(walk.shape(pick)) for pick in by_axis.values())
    first, last = min(by_axis), max(by_axis)
    if last - first >= len(by_axis):  # indices that are not neighbors put theirs in front
        return (*picked, *(labels for axis, labels in enumerate(dims) if axis not in by_axis))
    return (*dims[:first], *picked, *dims[last + 1 :])


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
    times = [*[1] * (len(padded) - len(times)), *times]  # `tile` may leave out the first ones
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
