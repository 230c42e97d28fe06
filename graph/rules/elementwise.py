"""Rules for operators that work element by element, with broadcasting."""

from __future__ import annotations

from torch.fx import Node

from ..analysis import Walk
from ..labels import Dims


def unary(walk: Walk, node: Node) -> Dims:
    """Activations, dropout, casts: the output's dimensions are the input's."""
    return walk.of(node.args[0])


def broadcast(walk: Walk, node: Node) -> Dims:
    """add, mul, ...: aligned dimensions are tied; a dimension of size 1 follows the other."""
    operands = [n for n in node.all_input_nodes if walk.shape(n)]
    rank = len(walk.shape(node))
    result: list[object] = []
    for position in range(-rank, 0):
        result.append(_aligned(walk, node, operands, position))
    return tuple(result)  # type: ignore[arg-type]


def _aligned(walk: Walk, node: Node, operands: list[Node], position: int) -> object:
    total = walk.shape(node)[position]
    labels = None
    seen = False
    for operand in operands:
        dims = walk.of(operand)
        if len(dims) < -position:
            continue
        if walk.shape(operand)[position] == 1 and total != 1:
            # Stays of size 1 whatever the other side keeps, so it must not be dropped.
            walk.labels.freeze(dims[position], f"it is broadcast by node `{node.name}`")
            continue
        here = dims[position]
        reason = f"node `{node.name}` combines it with a dimension that stays whole"
        labels = walk.labels.join(labels, here, reason) if seen else here
        seen = True
    return labels
