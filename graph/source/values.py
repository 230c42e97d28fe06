"""Arguments of a graph's nodes as Python text."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.fx import Node

from .layout import Piece, listed

Show = Callable[[Any], Piece]
DEVICE = "device"


def shown(value: Any, name: Callable[[Node], str]) -> Piece:
    """`value` as it is written; `name` gives the expression for a node.

    Devices are written as that of the first input, so that the model can be moved.
    """
    if isinstance(value, Node):
        return name(value)
    if isinstance(value, (list, tuple)):
        return listed(shown(item, name) for item in value)
    if isinstance(value, float) and not math.isfinite(value):
        return f'float("{value}")'
    if isinstance(value, float):
        return repr(value).replace("e+", "e")
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, torch.device):
        return DEVICE
    return str(value) if isinstance(value, (torch.dtype, torch.layout)) else repr(value)


def single(value: Any) -> Any:
    """[3, 3] as 3, for sizes that hold for every axis; all else as it is."""
    whole = isinstance(value, Sequence) and len(value) > 0 and not isinstance(value, str)
    if whole and all(isinstance(v, int) and v == value[0] for v in value):
        return value[0]
    return value


def given(node: Node) -> dict[str, Any]:
    """All arguments of an operator by the schema's names, defaults filled in."""
    schema = node.target._schema  # type: ignore[union-attr]
    values: dict[str, Any] = {}
    for place, argument in enumerate(schema.arguments):
        default = argument.default_value if argument.has_default_value() else None
        positional = place < len(node.args)
        values[argument.name] = (
            node.args[place] if positional else node.kwargs.get(argument.name, default)
        )
    return values
