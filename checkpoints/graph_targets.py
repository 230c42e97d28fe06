"""The calls that a stored graph may make: operators of torch by name, arithmetic on sizes."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch.fx.node import Argument

from .graph_values import field_of
from .program_calls import reason_against, registered, unfit_argument

_OPERATORS = ("getitem", "eq", "ne", "le", "ge", "lt", "gt", "neg", "pos", "mul", "add", "sub",
              "floordiv", "mod", "pow", "truediv", "and_", "or_")  # fmt: skip
PLAIN_CALLS: dict[str, Callable[..., Any]] = {
    **{f"_operator.{name}": getattr(operator, name) for name in _OPERATORS},
    **{f"math.{name}": getattr(math, name) for name in ("trunc", "ceil", "floor", "sqrt")},
    **{
        f"torch.{name}": getattr(torch, name)
        for name in ("sym_not", "sym_int", "sym_float", "sym_ite", "sym_max", "sym_min")
    },
}
_operators = cache(registered)


@cache
def call_named(name: str) -> Callable[..., Any]:
    """The function that a node of that target calls.

    Raises ValueError for all but operators that open no files and trust no sizes that they are
    told, and arithmetic.
    """
    if name in PLAIN_CALLS:
        return PLAIN_CALLS[name]
    if not name.startswith("torch.ops.") or (reason := reason_against(name, _operators())):
        _operators.cache_clear()  # another library may be imported before the next try
        known = name.startswith("torch.ops.") and reason != "unknown"
        raise ValueError(f"a call of `{reason if known else name[:80]}`")
    _, _, namespace, word, overload = name.split(".")
    call: Callable[..., Any] = getattr(getattr(getattr(torch.ops, namespace), word), overload)
    return call


def check_arguments(name: str, args: tuple[Argument, ...], kwargs: dict[str, Argument]) -> None:
    """Raises ValueError for arguments that what `name` calls does not take."""
    if name in PLAIN_CALLS:
        if kwargs:
            raise ValueError(f"`{name}` takes no keywords")
        return
    places = _places(name)
    if len(args) > len(places):
        raise ValueError(f"`{name}` takes no {len(args)} arguments")
    given = [*zip(places, args, strict=False), *kwargs.items()]
    unfit = unfit_argument(name, [(key, field_of(value)) for key, value in given])
    if unfit:
        raise ValueError(f"`{name}` takes no `{unfit}`")


@cache
def _places(name: str) -> tuple[str, ...]:
    """Names of the arguments that an operator takes without a keyword."""
    schema = call_named(name)._schema  # type: ignore[attr-defined]
    return tuple(a.name for a in schema.arguments if not a.kwarg_only)
