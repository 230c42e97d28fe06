"""A model at a smaller input size: what comes in is made smaller first, in the graph itself.

The model takes what it took before, so its file stays a drop-in and accuracy is measured on the
user's own data.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Node
from torch.fx.node import Argument

from ...core.errors import EditError, text_line
from ..operators import aten
from ..shapes import renew

RESIZE = aten._upsample_bilinear2d_aa.vec


_HALVES = (torch.float16, torch.bfloat16)  # CPUs have no such kernel that resizes


def smaller(value: Tensor, size: tuple[int, ...]) -> Tensor:
    """Images [N, C, H, W] at `size` (height, width); of sequences [N, T] the first (length,)."""
    wide = value.float() if value.dtype in _HALVES else value
    small: Tensor = _call(len(size))(wide, *_arguments(size))
    return small.to(value.dtype)


def resize(module: GraphModule, inputs: list[Node], size: tuple[int, ...]) -> None:
    """Make `inputs` smaller, in place. Raises EditError where the rest can't run at that size:
    sizes that it holds as numbers must have been set before.
    """
    for node in inputs:
        if node.op != "placeholder":
            raise EditError(f"`{node.name}` is not an input of the model, so it can't be resized.")
        value = node.meta.get("val")
        half = value.dtype if isinstance(value, Tensor) and value.dtype in _HALVES else None
        source = _behind(node, aten.to.dtype, torch.float32) if half else node
        small = _behind(source, _call(len(size)), *_arguments(size))
        if half:
            _behind(small, aten.to.dtype, half)
    try:
        renew(module)
    except Exception as error:
        first = text_line(error)
        raise EditError(f"the graph can't run at size {list(size)}: {first}.") from error


def resized(node: Node) -> Node | None:
    """The call that makes input `node` smaller, if its images are."""
    user = next(iter(node.users), None)
    return user if user is not None and user.target is RESIZE else None


def _behind(node: Node, target: Callable[..., object], *arguments: Argument) -> Node:
    """A new call on `node`, which all readers of `node` read instead."""
    with node.graph.inserting_after(node):
        call = node.graph.call_function(target, (node, *arguments))
    call.meta["val"] = node.meta.get("val")
    node.replace_all_uses_with(call, delete_user_cb=lambda user: user is not call)
    return call


def _call(dims: int) -> Any:
    return RESIZE if dims == 2 else aten.slice.Tensor


def _arguments(size: tuple[int, ...]) -> tuple[Any, ...]:
    return (list(size), False, None) if len(size) == 2 else (1, 0, *size)
