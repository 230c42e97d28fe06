"""Arguments of a graph's nodes as Python text."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any, TypeAlias

import torch
from torch.fx import Node

from ...core.errors import EditError
from .layout import Piece, listed
from .literals import literal

Show = Callable[[object], Piece]
Arguments: TypeAlias = dict[str, Any]  # of an operator, by the schema's names
DEVICE = "device"


def value_text(value: object, name: Callable[[Node], str]) -> Piece:
    """`value` as it is written; `name` gives the expression for a node.

    Devices are written as that of the first input, so that the model can be moved.
    """
    if isinstance(value, Node):
        return name(value)
    if isinstance(value, (list, tuple)):
        return listed(value_text(item, name) for item in value)
    return DEVICE if isinstance(value, torch.device) else literal(value)


def single(value: object) -> object:
    """[3, 3] as 3, for sizes that hold for every axis; all else as it is."""
    if not isinstance(value, Sequence) or isinstance(value, str) or not len(value):
        return value
    alike = all(isinstance(v, int) and v == value[0] for v in value)
    return value[0] if alike else value


def keywords(node: Node, show: Show, without: Collection[str] = ()) -> list[str]:
    """`name=value` of what a node is given by name. Raises EditError for names of no argument."""
    known = {argument.name for argument in node.target._schema.arguments}  # type: ignore[union-attr]
    if strange := sorted(set(node.kwargs) - known):
        raise EditError(f"the graph gives `{strange[0]}` to `{node.target}`, which has no such")
    return [f"{k}={show(v)}" for k, v in node.kwargs.items() if k not in without]


def arguments_of(node: Node) -> Arguments:
    """All arguments of an operator by the schema's names, defaults filled in."""
    schema = node.target._schema  # type: ignore[union-attr]
    values: Arguments = {}
    for place, argument in enumerate(schema.arguments):
        default = argument.default_value if argument.has_default_value() else None
        positional = place < len(node.args)
        values[argument.name] = (
            node.args[place] if positional else node.kwargs.get(argument.name, default)
        )
    return values
