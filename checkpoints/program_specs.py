"""Nesting of the arguments and results of a `.pt2` (tree specs): read here and rewritten.

torch imports what an enum or the factory of a `defaultdict` in them names, and writes keyword
names into source.
"""

from __future__ import annotations

import json
from math import isfinite

from torch.utils import _pytree as pytree

from ..core.json_values import JsonObject
from .program_names import is_key, is_name, is_type

DEEPEST = 32
LARGEST_INTEGER = 1 << 63
FACTORIES = {"dict", "float", "int", "list", "set", "str", "tuple"}  # of Python, for a defaultdict
OURS = ("collections.namedtuple", "collections.defaultdict")


class Strange(ValueError):
    """A spec that holds what torch would import or write into source."""


def spec_text(text: str, inputs: bool) -> str:
    """The same spec. `inputs`: the keys of its second part are names of arguments.

    Raises Strange where torch would run what it names, ValueError where it is not a spec.
    """
    spec = json.loads(text)
    if not isinstance(spec, list) or len(spec) != 2 or spec[0] != 1:
        raise ValueError("a tree spec of another version")
    root = _node(spec[1], 0)
    if inputs:
        _check_keywords(root)
    return json.dumps([1, root])


def _node(node: object, depth: int) -> JsonObject:
    if not isinstance(node, dict) or not {"type", "context", "children_spec"} <= set(node):
        raise ValueError("a tree spec without type, context and children")
    if depth > DEEPEST:
        raise ValueError("a tree spec deeper than any call is")
    kind, children = node["type"], node["children_spec"]
    if not isinstance(children, list):
        raise ValueError("a tree spec without children")
    if kind is None:
        if node["context"] is not None or children:
            raise ValueError("a leaf of a tree spec that holds something")
        return {"type": None, "context": None, "children_spec": []}
    if not isinstance(kind, str) or not is_type(kind):
        raise Strange(f"the tree spec's type {str(kind)[:60]}")
    context = _context(kind, node["context"])
    return {
        "type": kind,
        "context": context,
        "children_spec": [_node(child, depth + 1) for child in children],
    }


def _context(kind: str, context: object) -> object:
    if kind == "collections.namedtuple":
        if not isinstance(context, str) or not is_type(context):
            raise Strange(f"the tree spec's tuple {str(context)[:60]}")
        return context
    if kind == "collections.defaultdict":
        return _factory(context)
    if _has_reader(kind):
        raise Strange(f"the tree spec's {kind}, which reads its context by code of its own")
    if not isinstance(context, str):
        raise ValueError("a tree spec whose context is not a text")
    value = json.loads(context)
    _check_plain(value, 0)
    return json.dumps(value)


def _factory(context: object) -> JsonObject:
    if not isinstance(context, dict):
        raise ValueError("a tree spec of a defaultdict without its factory")
    module, name = context.get("default_factory_module"), context.get("default_factory_name")
    if module != "builtins" or name not in FACTORIES:
        raise Strange(f"the tree spec's default_factory_name {str(module)[:40]}.{str(name)[:40]}")
    keys = context.get("dict_context")
    _check_plain(keys, 0)
    return {"default_factory_module": module, "default_factory_name": name, "dict_context": keys}


def _has_reader(kind: str) -> bool:
    """Has a library registered a function that makes the context? Unknown types are torch's to
    refuse."""
    python_type = pytree.SERIALIZED_TYPE_TO_PYTHON_TYPE.get(kind)
    if python_type is None:
        return False
    serializer = pytree.SUPPORTED_SERIALIZED_TYPES.get(python_type)
    return serializer is not None and serializer.from_dumpable_context is not None


def _check_plain(value: object, depth: int) -> None:
    if depth > DEEPEST:
        raise ValueError("a tree spec's context deeper than any call is")
    if isinstance(value, str) and not is_key(value):
        raise Strange(f"the key {value[:60]}")
    if isinstance(value, dict):
        if "__enum__" in value:
            raise Strange("the tree spec's __enum__")
        value = [*value, *value.values()]
    if isinstance(value, list):
        for part in value:
            _check_plain(part, depth + 1)
    elif isinstance(value, float) and not isfinite(value):
        raise ValueError("a tree spec's context that holds NaN or infinity")
    elif isinstance(value, int) and abs(value) > LARGEST_INTEGER:
        raise ValueError("a tree spec's context that holds an absurd number")


def _check_keywords(root: JsonObject) -> None:
    """Of a call's (arguments, keywords): torch writes the keywords into source."""
    for child in root["children_spec"][1:2]:
        if child["type"] == "builtins.dict":
            keys = json.loads(child["context"])
            for key in keys if isinstance(keys, list) else [keys]:
                if not isinstance(key, str) or not is_name(key):
                    raise Strange(f"the name {str(key)[:60]}")
