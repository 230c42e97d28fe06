"""Values as Python literals: the one place where a text of a program becomes part of a file.

What has no literal is refused, so that nothing but numbers, quoted texts and names of torch's own
types can come from here.
"""

from __future__ import annotations

import json
import math

import torch

from ...core.errors import EditError

NAMED_TYPES = (torch.dtype, torch.layout, torch.memory_format)


def string_literal(text: str) -> str:
    """`text` in double quotes; what is not printed plainly, quotes and backslashes are escaped."""
    if text.isprintable():
        return json.dumps(text, ensure_ascii=False)
    return '"' + text.encode("unicode_escape").decode("ascii").replace('"', '\\"') + '"'


def literal(value: object) -> str:
    """Raises EditError for what is neither a number, a text, None, a name nor a tuple of such."""
    if value is None or type(value) in (bool, int):
        return repr(value)
    if type(value) is float:
        return _decimal(value)
    if type(value) is complex:
        return f"complex({_decimal(value.real)}, {_decimal(value.imag)})"
    if type(value) is str:
        return string_literal(value)
    if isinstance(value, (list, tuple)):
        items = ", ".join(map(literal, value))
        return f"({items},)" if len(value) == 1 else f"({items})"
    if isinstance(value, NAMED_TYPES):
        return str(value)
    raise EditError(f"the graph holds a {type(value).__name__} as an argument")


def _decimal(value: float) -> str:
    if not math.isfinite(value):
        return f'float("{value}")'
    return repr(value).replace("e+", "e")
