"""Arguments of a stored graph's calls as JSON, and back: literals, and nodes by their names.

What is not a literal of JSON is an object of one key that says what it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import inf, isfinite, nan
from typing import Any

import torch
from torch.fx import Node

from ..core.json_values import JsonObject

FORMAT = 1  # of the file
DEEPEST = 8  # lists within lists
LARGEST_INTEGER = 1 << 63
LONGEST_TEXT = 1 << 16
ODD = {"inf": inf, "-inf": -inf, "nan": nan}
MEMORY = {
    str(order).removeprefix("torch."): order
    for order in (torch.contiguous_format, torch.channels_last, torch.channels_last_3d)
}  # orders in which the values of a tensor lie
_NAMED: dict[str, dict[str, Any]] = {
    "layout": {"strided": torch.strided},
    "format": {**MEMORY, "preserve_format": torch.preserve_format},
}
DTYPES = (
    "bool", "uint8", "int8", "int16", "int32", "int64", "float16", "bfloat16", "float32",
    "float64", "complex64", "complex128",
)  # fmt: skip
DEVICES = ("cpu", "cuda")


class Unstorable(ValueError):
    """A graph that holds what the format has no form for; `model.pt2` alone holds it."""


def json_of(value: object) -> Any:
    """`value` for `json.dumps`. Raises Unstorable."""
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        return value if isfinite(value) else {"float": str(value)}
    if isinstance(value, Node):
        return {"node": value.name}
    if isinstance(value, tuple):
        return {"tuple": [json_of(part) for part in value]}
    if isinstance(value, list):
        return [json_of(part) for part in value]
    name = str(value).removeprefix("torch.")
    if isinstance(value, torch.dtype) and name in DTYPES:
        return {"dtype": name}
    if isinstance(value, torch.device) and value.type in DEVICES:
        return {"device": value.type}
    for key, known in _NAMED.items():
        if name in known and known[name] is value:
            return {key: name}
    raise Unstorable(f"an argument of the type {type(value).__name__}")


def value_of(value: object, nodes: Mapping[str, Node], depth: int = 0) -> Any:
    """The value that `json_of` made. Raises ValueError."""
    if depth > DEEPEST:
        raise ValueError("an argument nested deeper than any call's is")
    if isinstance(value, list):
        return [value_of(part, nodes, depth + 1) for part in value]
    if isinstance(value, dict):
        return _object(value, nodes, depth)
    if isinstance(value, str) and len(value) > LONGEST_TEXT:
        raise ValueError("a text longer than any argument is")
    if type(value) is int and abs(value) > LARGEST_INTEGER:
        raise ValueError("a number larger than any argument is")
    return value


def _object(value: JsonObject, nodes: Mapping[str, Node], depth: int) -> Any:
    if len(value) != 1:
        raise ValueError("an argument of no known form")
    key, inner = next(iter(value.items()))
    if key == "tuple" and isinstance(inner, list):
        return tuple(value_of(part, nodes, depth + 1) for part in inner)
    if isinstance(inner, str):
        if key == "node" and inner in nodes:
            return nodes[inner]
        if key == "float" and inner in ODD:
            return ODD[inner]
        if key == "dtype" and inner in DTYPES:
            return getattr(torch, inner)
        if key == "device" and inner in DEVICES:
            return torch.device(inner)
        if key in _NAMED and inner in _NAMED[key]:
            return _NAMED[key][inner]
    raise ValueError(f"`{str(key)[:40]}` of an argument can't be `{str(inner)[:40]}`")


def field_of(value: object) -> str:
    """The field of torch's own schema that holds such a value (program_calls.unfit_argument)."""
    if isinstance(value, (list, tuple)):
        return "as_strings" if any(isinstance(part, str) for part in value) else "as_list"
    kinds: dict[type, str] = {
        bool: "as_bool", int: "as_int", float: "as_float", str: "as_string", Node: "as_tensor",
        torch.dtype: "as_scalar_type", torch.device: "as_device", torch.layout: "as_layout",
        torch.memory_format: "as_memory_format", type(None): "as_none",
    }  # fmt: skip
    return kinds[type(value)]
