"""Rules for operators that work element by element, with broadcasting."""

from __future__ import annotations

from torch.fx import Node

from ..labels import Dims
from ..walk import Walk


def unary(walk: Walk, node: Node) -> Dims:
    """Activations, dropout, casts: the output's dimensions are the input's."""
    return walk.of(node.args[0])


def broadcast(walk: Walk, node: Node) -> Dims:
    """add, mul, ...: aligned dimensions are tied; a dimension of size 1 follows the other."""
    operands = [n for n in node.all_input_nodes if walk.shape(n)]
    rank = len(walk.shape(node))
    return tuple(walk.broadcast(node, operands, position) for position in range(-rank, 0))
