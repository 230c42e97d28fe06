"""Rules for norms other than batch norm: each computes its statistics over a set of indices."""

from __future__ import annotations

from torch.fx import Node

from ..labels import Dims
from ..walk import Walk
from .arguments import argument, integer
from .sizes import patch_size


def layer_norm(walk: Walk, node: Node) -> Dims:
    """layer_norm and rms_norm(x, shape, weight, bias): what they run over stays whole."""
    dims, shape = walk.of(node.args[0]), node.args[1]
    assert isinstance(shape, (list, tuple))
    inner = dims[len(dims) - len(shape) :]
    for vector in (argument(node, 2, "weight"), argument(node, 3, "bias")):
        for mine, theirs in zip(inner, walk.of(vector), strict=False):
            walk.labels.join(mine, theirs, "it scales a normalized dimension that stays whole")
    for position, labels in enumerate(inner):
        if walk.prune_normalized_dims and labels is not None:
            patch_size(walk, node, (1, position), shape[position], labels)
        else:
            walk.labels.freeze(labels, f"node `{node.name}` normalizes over it")
    return dims


def group_norm(walk: Walk, node: Node) -> Dims:
    """group_norm(x, groups, weight, bias): the unit is a whole group; one group stays whole."""
    dims, groups = walk.of(node.args[0]), integer(node.args[1])
    channels = dims[1]
    walk.freeze(dims[2:], f"node `{node.name}` normalizes over it")
    for vector in (argument(node, 2, "weight"), argument(node, 3, "bias")):
        follows = walk.of(vector)
        if follows:
            walk.labels.join(channels, follows[0], "it normalizes a dimension that stays whole")
    if channels is None:
        return dims
    if groups == 1 and not walk.prune_normalized_dims:
        walk.labels.freeze(channels, f"node `{node.name}` normalizes over it")
        return dims
    if groups == 1:
        return dims
    for members in channels.reshape(groups, -1):
        walk.labels.tie_all(members)
    walk.patch(node, (1,), channels, divide=len(channels) // groups)
    return dims


def instance_norm(walk: Walk, node: Node) -> Dims:
    """instance_norm(x, weight, bias, mean, var, ...): every channel by itself."""
    dims = walk.of(node.args[0])
    walk.freeze(dims[2:], f"node `{node.name}` normalizes over it")
    for vector in node.args[1:5]:
        follows = walk.of(vector)
        if follows:
            walk.labels.join(dims[1], follows[0], "it normalizes a dimension that stays whole")
    return dims
