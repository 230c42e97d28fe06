"""Rules that turn pixels into channels and back, and that mix channels by their place."""

from __future__ import annotations

import math

import numpy as np
from torch.fx import Node

from ..labels import Dims, Labels
from ..walk import RuleError, Walk
from .arguments import argument, integer
from .shape import whole_space


def pixel_shuffle(walk: Walk, node: Node) -> Dims:
    """(B, C r r, H, W) -> (B, C, r H, r W): a unit is the r r channels of one output channel."""
    dims, factor = walk.of(node.args[0]), integer(node.args[1])
    spatial = whole_space(walk, node, dims[-2:])
    return (*dims[:-3], _one_of(walk, dims[-3], factor * factor), *spatial)


def pixel_unshuffle(walk: Walk, node: Node) -> Dims:
    dims, factor = walk.of(node.args[0]), integer(node.args[1])
    spatial = whole_space(walk, node, dims[-2:])
    return (*dims[:-3], _times(dims[-3], factor * factor), *spatial)


def im2col(walk: Walk, node: Node) -> Dims:
    """(B, C, H, W) -> (B, C kh kw, L), `unfold` of images: a channel becomes the pixels around."""
    dims = walk.of(node.args[0])
    walk.freeze(dims[2:], f"node `{node.name}` mixes neighbors along it")
    return (dims[0], _times(dims[1], _kernel(node, 1)), None)


def col2im(walk: Walk, node: Node) -> Dims:
    """(B, C kh kw, L) -> (B, C, H, W), `fold`: the reverse of im2col."""
    dims = walk.of(node.args[0])
    walk.freeze(dims[2:], f"node `{node.name}` mixes neighbors along it")
    return (dims[0], _one_of(walk, dims[1], _kernel(node, 2)), None, None)


def _kernel(node: Node, place: int) -> int:
    sizes = node.args[place]
    assert isinstance(sizes, (list, tuple))
    return math.prod(integer(n) for n in sizes)


def unfold(walk: Walk, node: Node) -> Dims:
    """x.unfold(dim, size, step): windows along `dim`, their inside last."""
    dims = walk.of(node.args[0])
    axis = integer(node.args[1]) % len(dims)
    spatial = whole_space(walk, node, (dims[axis],))
    return (*dims[:axis], *spatial, *dims[axis + 1 :], None)


def grid_sampler(walk: Walk, node: Node) -> Dims:
    """grid_sampler(x, grid): channels pass, pixels are read where the grid says."""
    dims, grid = walk.of(node.args[0]), walk.of(node.args[1])
    walk.freeze(grid[1:], f"node `{node.name}` reads places from it")
    walk.labels.join(dims[0], grid[0], f"node `{node.name}` reads each by a grid of its own")
    return (*dims[:2], *whole_space(walk, node, dims[2:]))


def channel_shuffle(walk: Walk, node: Node) -> Dims:
    """channel_shuffle(x, groups): the same position of all groups goes together."""
    dims, groups = walk.of(node.args[0]), integer(argument(node, 1, "groups"))
    labels = dims[1]
    if labels is None:
        return dims
    rows = labels.reshape(groups, -1)
    for row in rows[1:]:
        walk.labels.join(rows[0], row, "")
    return (dims[0], rows.T.flatten(), *dims[2:])


def _one_of(walk: Walk, labels: Labels | None, count: int) -> Labels | None:
    """Each `count` neighbors become one."""
    if labels is None:
        return None
    if len(labels) % count:
        raise RuleError("channels that do not divide")
    rows = labels.reshape(-1, count)
    for row in rows:
        walk.labels.tie_all(row)
    return rows[:, 0].copy()


def _times(labels: Labels | None, count: int) -> Labels | None:
    return None if labels is None else np.repeat(labels, count)
