"""JSON of records with anything in each field: what the reader accepts, reports must show."""

from __future__ import annotations

import math
import types
import typing
from dataclasses import MISSING, fields, is_dataclass
from typing import Annotated, Any, Literal

from hypothesis import strategies as st
from modelspeed.core.bounds import Like, Within

# Lone surrogates, escapes of a terminal, markup of three kinds, line breaks.
TEXTS = st.one_of(
    st.text(st.characters(codec=None), max_size=8),
    st.sampled_from(["\ud800", "\udcff.pt", "\x1b]0;x\x07", "[/]", "[bold", "</script>", "a|b\r\nc",
                     "", "'\"&`$(x)", "..", "\x00"]),
)  # fmt: skip
PLAIN = st.one_of(TEXTS, st.none(), st.booleans(), st.floats(-1e300, 1e300), st.integers())


def fitting(hint: Any) -> st.SearchStrategy[Any]:
    """Values that mostly fit `hint`, drawn to its ends."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        return _bounded(*args)
    if origin in (types.UnionType, typing.Union):
        return st.one_of(st.none(), fitting(args[0]))
    if origin is tuple:
        return st.lists(fitting(args[0]), max_size=3)
    if origin is Literal:
        return st.sampled_from(args)
    if origin is dict:
        return st.dictionaries(TEXTS, PLAIN, max_size=3)
    if is_dataclass(hint):
        return json_of(hint)
    return {str: TEXTS, int: st.integers(), bool: st.booleans()}[hint]


def _bounded(kind: Any, bound: Within | Like) -> st.SearchStrategy[Any]:
    if isinstance(bound, Like):
        return st.sampled_from(["cpu", "cuda", "cuda:1"])
    low, high = (None if math.isinf(x) else x for x in (bound.low, bound.high))
    if kind is int:
        return st.integers(low, high)
    return st.floats(
        low, high, exclude_min=bound.above, exclude_max=bound.below, allow_nan=False,
        allow_infinity=not bound.finite,
    )  # fmt: skip


def json_of(cls: type) -> st.SearchStrategy[dict[str, Any]]:
    hints = typing.get_type_hints(cls, include_extras=True)
    needed = {f.name for f in fields(cls) if f.default is MISSING and f.default_factory is MISSING}
    values = {name: fitting(hint) for name, hint in hints.items()}
    return st.fixed_dictionaries(
        {n: v for n, v in values.items() if n in needed},
        optional={n: v for n, v in values.items() if n not in needed},
    )
