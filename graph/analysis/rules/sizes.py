"""Sizes that a graph spells out: as numbers, as products with the batch, as sizes read at run time.

Where a size counts labels it is patched when some of them go, or proven to follow by itself.
"""

from __future__ import annotations

import operator
from collections.abc import Iterator

import numpy as np
from torch.fx import Node

from ...operators import aten
from ..labels import Labels
from ..walk import Walk
from .arguments import integer


def patch_size(walk: Walk, node: Node, path: tuple[int, ...], size: object, labels: Labels) -> None:
    """Argument `path` of `node` is `size` and counts `labels`, one time or (batch times) many."""
    if isinstance(size, Node):
        _patch_product(walk, node, size, labels)
    elif isinstance(size, int) and size != -1:
        walk.patch(node, path, labels)


def _patch_product(walk: Walk, node: Node, size: Node, labels: Labels) -> None:
    """`batch * 12` holds the number of heads as a factor; `x.size(0)` follows the labels of x."""
    if size.target is aten.sym_size.int:
        source, axis = size.args
        reason = f"its size is read from another tensor (`{size.name}`)"
        walk.labels.join(labels, walk.of(source)[integer(axis)], reason)
        return
    # Where labels come again and again, the size may count them once.
    for count in (len(labels), len(np.unique(labels))):
        for product, place, user in _factors(size, node):
            if product.args[place] == count:
                walk.patch(product, (place,), labels, len(labels) // count, user)
                return
    walk.labels.freeze(labels, f"the size `{size.name}` counts it in a way not understood")


def _factors(size: Node, user: Node) -> Iterator[tuple[Node, int, Node]]:
    """The places of all numbers in `batch * 12 * 8`, with the node that reads the product."""
    if size.target is not operator.mul:
        return
    for place, value in enumerate(size.args):
        if isinstance(value, Node):
            yield from _factors(value, size)
        else:
            yield size, place, user


def free_size(walk: Walk, node: Node, path: tuple[int, ...], size: object) -> Labels | None:
    """Labels of a dimension whose indices are all alike: it takes whatever size others need."""
    count = _factor(size) if isinstance(size, Node) else size
    if not isinstance(count, int) or count < 2:
        return None
    labels = walk.labels.new_free(count)
    patch_size(walk, node, path, size, labels)
    return labels


def _factor(size: Node) -> int | None:
    """12 in `batch * 12`."""
    if size.target is not operator.mul:
        return None
    return next((value for value in size.args if isinstance(value, int)), None)
