"""Recurrent layers: their state is fed back with gates in one weight; nothing of them is cut."""

from __future__ import annotations

from torch.fx import Node

from ..walk import Parts, Walk


def recurrent(walk: Walk, node: Node) -> Parts:
    """lstm, gru, rnn(input, state, weights, ...) -> (output, state): all stays whole."""
    kind = str(node.target).removeprefix("aten.").partition(".")[0]
    for used in node.all_input_nodes:
        walk.freeze(walk.of(used), f"`{kind}` (node `{node.name}`) feeds its units back to itself")
    values = node.meta.get("val", ())
    return [tuple(None for _ in value.shape) for value in values]
