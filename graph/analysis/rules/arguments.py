"""Reads operator arguments the way every rule needs them."""

from __future__ import annotations

from torch.fx import Node


def argument(node: Node, index: int, name: str, default: object = None) -> object:
    """An argument given by place or by name."""
    if len(node.args) > index:
        return node.args[index]
    return node.kwargs.get(name, default)


def axes(given: object, rank: int) -> list[int]:
    """A dim argument as non-negative numbers; None (or an empty list) means all."""
    if given is None or given == []:
        return list(range(rank))
    return [integer(a) % rank for a in (given if isinstance(given, (list, tuple)) else [given])]


def integer(value: object) -> int:
    assert isinstance(value, int)
    return value
