"""Two captures of one model at different input sizes: what numbers in the graph the size set."""

from __future__ import annotations

from collections.abc import Iterator
from operator import attrgetter

import torch
from torch import Tensor
from torch.fx import GraphModule, Node

from ...core.errors import EditError
from .apply import Constant

OTHER_PATH = "the model computes something else at that size"


def sizes_between(before: GraphModule, after: GraphModule) -> tuple[Constant, ...]:
    """Edits that make the constants of `before` those of `after`.

    Raises EditError where the two differ in more than numbers.
    """
    old, new = list(before.graph.nodes), list(after.graph.nodes)
    if [(n.name, n.target) for n in old] != [(n.name, n.target) for n in new]:
        raise EditError(OTHER_PATH)
    edits: list[Constant] = []
    for a, b in zip(old, new, strict=True):
        if a.op == "get_attr":
            _same_tensor(attrgetter(str(a.target))(before), attrgetter(str(b.target))(after), a)
        elif a.op == "call_function":
            edits += _changed(a, (), a.args, b.args)
            if str(a.kwargs) != str(b.kwargs):
                raise EditError(OTHER_PATH)
    return tuple(edits)


def _same_tensor(old: object, new: object, node: Node) -> None:
    if not isinstance(old, Tensor):
        return
    if not isinstance(new, Tensor) or old.shape != new.shape or not torch.equal(old, new):
        raise EditError(f"`{node.target}` is made for one input size")


def _changed(node: Node, path: tuple[int, ...], old: object, new: object) -> Iterator[Constant]:
    if isinstance(old, (list, tuple)) and isinstance(new, (list, tuple)) and len(old) == len(new):
        for at, (a, b) in enumerate(zip(old, new, strict=True)):
            yield from _changed(node, (*path, at), a, b)
    elif type(old) is int and type(new) is int:
        if old != new:
            yield Constant(node.name, path, new)
    elif str(old) != str(new):  # nodes have the same names in both
        raise EditError(OTHER_PATH)
