"""Rules that pad: with a constant, or with what is there."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from torch.fx import Node

from ..labels import Dims, Labels
from ..walk import Walk
from .arguments import argument, integer


def pad(walk: Walk, node: Node) -> Dims:
    """pad(x, (last_left, last_right, ...), mode)."""
    constant_mode = argument(node, 2, "mode", "constant") == "constant"
    return (constant if constant_mode else mirrored)(walk, node)


def constant(walk: Walk, node: Node) -> Dims:
    """Padding is a concatenation: channels that are added have labels of their own."""
    dims = list(walk.of(node.args[0]))
    for axis, place, amounts in _padded(node, len(dims)):
        labels = dims[axis]
        if labels is None:
            continue
        if not all(isinstance(n, int) and n >= 0 for n in amounts):
            walk.labels.freeze(labels, f"node `{node.name}` cuts it or pads it by a size not known")
            dims[axis] = None
            continue
        before, after = (_added(walk, node, place + i, n) for i, n in enumerate(amounts))
        dims[axis] = np.concatenate([before, labels, after])
    return tuple(dims)


def _added(walk: Walk, node: Node, place: int, amount: object) -> Labels:
    labels = walk.labels.new(integer(amount))
    if amount:
        walk.patch(node, (1, place), labels)
    return labels


def mirrored(walk: Walk, node: Node) -> Dims:
    """Reflected and repeated indices are made of others, so these stay whole."""
    dims = list(walk.of(node.args[0]))
    for axis, _, _ in _padded(node, len(dims)):
        walk.labels.freeze(dims[axis], f"node `{node.name}` pads it with itself")
        dims[axis] = None
    return tuple(dims)


def _padded(node: Node, rank: int) -> Iterator[tuple[int, int, tuple[object, object]]]:
    """Axis, place among the amounts, and amounts of each dimension that changes; last one first."""
    given = node.args[1]
    assert isinstance(given, (list, tuple))
    for place in range(0, len(given), 2):
        amounts = (given[place], given[place + 1])
        if amounts != (0, 0):
            yield rank - 1 - place // 2, place, amounts
