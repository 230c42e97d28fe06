"""Requests put together for one call, and its outputs given back row by row."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from ...core.errors import UsageError

Call = tuple[tuple[Any, ...], Mapping[str, Any]]


def check_single(call: Call) -> None:
    """Raises UsageError if a request is not one example with a batch dimension of 1."""
    args, kwargs = call
    for value in (*args, *kwargs.values()):
        if isinstance(value, Tensor) and (not value.dim() or value.shape[0] != 1):
            raise UsageError(
                f"a request is one example with a batch dimension of 1; found a tensor of shape "
                f"{list(value.shape)}."
            )


def kind_of(call: Call) -> Hashable:
    """Calls of the same kind can be put together."""
    args, kwargs = call
    return (
        tuple(_kind(value) for value in args),
        tuple((name, _kind(kwargs[name])) for name in sorted(kwargs)),
    )


def together(calls: Sequence[Call], size: int) -> Call:
    """One call of `size` rows; where there are fewer the last one is repeated."""
    if len(calls) == size == 1:
        return calls[0]
    rows = [*calls, *[calls[-1]] * (size - len(calls))]
    first_args, first_kwargs = calls[0]
    args = tuple(_stack([args[i] for args, _ in rows]) for i in range(len(first_args)))
    return args, {name: _stack([kwargs[name] for _, kwargs in rows]) for name in first_kwargs}


def apart(outputs: Any, size: int, count: int) -> list[Any] | None:
    """The first `count` rows of outputs for `size`, each as of its own call; None where an output
    has no row for each."""
    flat, spec = pytree.tree_flatten(outputs)
    for value in flat:
        if isinstance(value, Tensor) and (not value.dim() or value.shape[0] != size):
            return None
    if size == count == 1:
        return [outputs]
    rows = [[_row(value, i) for value in flat] for i in range(count)]
    return [pytree.tree_unflatten(row, spec) for row in rows]


def _kind(value: Any) -> Hashable:
    if isinstance(value, Tensor):
        return (tuple(value.shape[1:]), value.dtype, value.device)
    return (type(value), repr(value))


def _stack(values: Sequence[Any]) -> Any:
    return torch.cat(list(values)) if isinstance(values[0], Tensor) else values[0]


def _row(value: Any, place: int) -> Any:
    # A copy: a view would keep the whole batch alive for as long as one of its answers.
    return value[place : place + 1].clone() if isinstance(value, Tensor) else value
