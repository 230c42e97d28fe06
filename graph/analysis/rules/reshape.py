"""view, reshape, flatten, unflatten: dimensions are cut into the factors both shapes share.

(B, N, 768) -> (B, N, 12, 64) has the factors B, N, 12, 64. A dimension that is split keeps its
units along one of its factors: a unit is a whole slice (a head, not one of its channels). Which
factor is settled by `Walk.choices`: the analysis tries another where one turns out frozen.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import sympy
from torch.fx import Node

from ...operators import aten
from ..labels import Dims, Labels
from ..walk import Walk
from .sizes import patch_size

_MOVES = (aten.transpose.int, aten.permute.default)
_COPIES = (aten.contiguous.default, aten.clone.default)
_RESHAPES = (aten.view.default, aten.reshape.default, aten.flatten.using_ints)


def reshape(walk: Walk, node: Node) -> Dims:
    """Labels of a tensor under a new shape with the same elements in the same order."""
    source = node.args[0]
    assert isinstance(source, Node)
    dims, before, after = walk.of(source), walk.shape(source), walk.shape(node)
    shared = _factors([_expr(n) for n in before], [_expr(n) for n in after])
    if shared is None:
        walk.freeze(dims, f"the shape change of node `{node.name}` is not understood")
        return tuple(None for _ in after)
    left, right, sizes = shared
    labels: list[Labels | None] = [None] * len(sizes)
    for axis, factors in enumerate(left):
        if dims[axis] is not None:
            _spread(walk, node, dims[axis], factors, sizes, labels)
    result = tuple(_gather(walk, node, factors, sizes, labels) for factors in right)
    _patch_sizes(walk, node, result)
    return result


def reshape_as(walk: Walk, node: Node) -> Dims:
    """Sizes that are read from another tensor follow its labels."""
    dims = reshape(walk, node)
    reason = f"node `{node.name}` shapes it like a dimension that stays whole"
    return tuple(
        walk.labels.join(mine, theirs, reason)
        for mine, theirs in zip(dims, walk.of(node.args[1]), strict=True)
    )


def _expr(size: Any) -> sympy.Expr:
    """A product or sum of symbols: what is rounded down (`s // 2`, behind a stride) is one."""
    if isinstance(size, int):
        return sympy.Integer(size)
    whole: sympy.Expr = size.node.expr
    rounded = whole.atoms(sympy.Function)
    return whole.xreplace({e: sympy.Symbol(str(e)) for e in rounded}) if rounded else whole


Factors = list[list[int]]


def _factors(
    before: list[sympy.Expr], after: list[sympy.Expr]
) -> tuple[Factors, Factors, list[sympy.Expr]] | None:
    """Factor numbers of each dimension of both shapes, and the factors; None if there are none."""
    left: Factors = [[] for _ in before]
    right: Factors = [[] for _ in after]
    sizes: list[sympy.Expr] = []
    a, b = list(before), list(after)
    i = j = 0
    while i < len(a) or j < len(b):
        # A 1 belongs to whichever side has it.
        if i < len(a) and a[i] == 1:
            if not left[i]:
                left[i].append(_add(sizes, sympy.Integer(1)))
            i += 1
            continue
        if j < len(b) and b[j] == 1:
            if not right[j]:
                right[j].append(_add(sizes, sympy.Integer(1)))
            j += 1
            continue
        if i >= len(a) or j >= len(b):
            return None
        part = a[i] if _divides(a[i], b[j]) else b[j] if _divides(b[j], a[i]) else None
        if part is None:
            return None
        number = _add(sizes, part)
        left[i].append(number)
        right[j].append(number)
        a[i], b[j] = sympy.cancel(a[i] / part), sympy.cancel(b[j] / part)
    return left, right, sizes


def _add(sizes: list[sympy.Expr], size: sympy.Expr) -> int:
    sizes.append(size)
    return len(sizes) - 1


def _divides(small: sympy.Expr, large: sympy.Expr) -> bool:
    if small.is_Integer and large.is_Integer:
        return int(small) != 0 and int(large) % int(small) == 0
    ratio = sympy.cancel(large / small)
    numerator, denominator = ratio.as_numer_denom()
    return bool(denominator == 1 and numerator.is_polynomial())


def _spread(
    walk: Walk,
    node: Node,
    labels: Labels | None,
    factors: Sequence[int],
    sizes: Sequence[sympy.Expr],
    out: list[Labels | None],
) -> None:
    """Give the labels of one dimension to one of the factors it is cut into."""
    assert labels is not None
    if len(factors) == 1 and sizes[factors[0]] != 1:  # neither cut nor of a known length, maybe
        out[factors[0]] = labels
        return
    # A merged dimension of unknown length holds the same labels again and again: its first factors.
    fixed = [f for f in factors if sizes[f].is_Integer and sizes[f] != 1]
    shape = [int(sizes[f]) for f in fixed]
    if math.prod(shape) != len(labels) or any(
        not sizes[f].is_Integer and fixed and f > fixed[0] for f in factors
    ):
        walk.labels.freeze(labels, f"node `{node.name}` reshapes it")
        return
    if not fixed:
        walk.labels.freeze(labels, f"node `{node.name}` reshapes it")
        return
    grid = walk.labels.roots(labels).reshape(shape)
    axis = _constant_elsewhere(grid)
    if axis is None:
        order = _preferred(node, shape)
        axis = walk.choose(node, order, labels)
    rows = np.moveaxis(grid, axis, 0).reshape(shape[axis], -1)
    for row in rows:
        walk.labels.tie_all(row)
    out[fixed[axis]] = rows[:, 0].copy()


def _constant_elsewhere(grid: Labels) -> int | None:
    """The axis along which alone the labels differ."""
    if grid.ndim == 1:
        return 0
    for axis in range(grid.ndim):
        rows = np.moveaxis(grid, axis, 0).reshape(grid.shape[axis], -1)
        if (rows == rows[:, :1]).all():
            return axis
    return None


def _preferred(node: Node, shape: Sequence[int]) -> list[int]:
    """Axes to try, best first. Heads come before what is inside a head; a shuffle swaps equals."""
    by_size = sorted(range(len(shape)), key=lambda axis: -shape[axis])
    if _is_shuffle(node):
        return by_size
    last = len(shape) - 1
    return [*(axis for axis in by_size if axis != last), last]


def _is_shuffle(node: Node) -> bool:
    """Split, swapped and merged to the shape from before: a channel shuffle."""
    here: Node = node
    moved = False
    for _ in range(4):
        users = list(here.users)
        if len(users) != 1:
            return False
        here = users[0]
        if here.target in _MOVES:
            moved = True
        elif here.target in _RESHAPES:
            source = node.args[0]
            assert isinstance(source, Node)
            old, new = source.meta.get("val"), here.meta.get("val")
            same = old is not None and new is not None and str(old.shape) == str(new.shape)
            return moved and same
        elif here.target not in _COPIES:
            return False
    return False


def _gather(
    walk: Walk,
    node: Node,
    factors: Sequence[int],
    sizes: Sequence[sympy.Expr],
    labels: Sequence[Labels | None],
) -> Labels | None:
    """Labels of a dimension made of `factors`: those of one of them, repeated as often as it is."""
    tracked = [f for f in factors if labels[f] is not None]
    if not tracked:
        return None
    # What is frozen or all alike gives way to a factor with units that can be dropped.
    chosen = min(tracked, key=lambda f: _rank(walk, labels[f]))
    kept, at = labels[chosen], list(factors).index(chosen)
    assert kept is not None
    for other in (f for f in tracked if f != chosen):
        walk.labels.freeze(labels[other], f"node `{node.name}` merges it into another dimension")
    outer, inner = factors[:at], factors[at + 1 :]
    if not all(sizes[f].is_Integer for f in inner):
        walk.labels.freeze(kept, f"node `{node.name}` merges it with a size known at run time")
        return None
    known = [int(sizes[f]) for f in outer if sizes[f].is_Integer]
    if len(known) < len(outer) and math.prod(known) != 1:
        walk.labels.freeze(kept, f"node `{node.name}` merges it with a size known at run time")
        return None
    return np.tile(np.repeat(kept, math.prod(int(sizes[f]) for f in inner)), math.prod(known))


def _rank(walk: Walk, labels: Labels | None) -> int:
    assert labels is not None
    if all(walk.labels.frozen(label) for label in labels.tolist()):
        return 2
    return int(all(walk.labels.is_free(label) for label in labels.tolist()))


def _patch_sizes(walk: Walk, node: Node, dims: Sequence[Labels | None]) -> None:
    """Sizes written as numbers in `view(x, [b, 12, 64])` change with the labels they count."""
    if node.target is aten.unflatten.int:
        at = int(node.args[1]) % len(walk.of(node.args[0]))  # type: ignore[arg-type]
        place, first = 2, at
    else:
        place, first = 1, 0
    sizes = node.args[place] if len(node.args) > place else None
    if not isinstance(sizes, (list, tuple)):
        return
    for position, size in enumerate(sizes):
        labels = dims[first + position]
        if labels is not None:
            patch_size(walk, node, (place, position), size, labels)
