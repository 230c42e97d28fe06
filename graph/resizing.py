"""A model at a smaller input size: what comes in is made smaller first, in the graph itself.

The model takes what it took before, so its file stays a drop-in and accuracy is measured on the
user's own data.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Node

from ..core.errors import EditError
from .shapes import renew

aten: Any = torch.ops.aten
RESIZE = aten._upsample_bilinear2d_aa.vec


def smaller(value: Tensor, size: tuple[int, ...]) -> Tensor:
    """Images [N, C, H, W] at `size` (height, width); of sequences [N, T] the first (length,)."""
    made: Tensor = _call(len(size))(value, *_arguments(size))
    return made


def resize(module: GraphModule, inputs: list[Node], size: tuple[int, ...]) -> None:
    """Make `inputs` smaller, in place. Raises EditError where the rest can't run at that size:
    sizes that it holds as numbers must have been set before.
    """
    for node in inputs:
        if node.op != "placeholder":
            raise EditError(f"`{node.name}` is no input of the model, so it can't be resized.")
        with module.graph.inserting_after(node):
            made = module.graph.call_function(_call(len(size)), (node, *_arguments(size)))
        made.meta["val"] = node.meta.get("val")
        _put_behind(node, made)
    try:
        renew(module)
    except Exception as error:
        first = str(error).strip().splitlines()[0]
        raise EditError(f"the graph can't run at size {list(size)}: {first}") from error


def resized(node: Node) -> Node | None:
    """What makes input `node` smaller, if its images are."""
    user = next(iter(node.users), None)
    return user if user is not None and user.target is RESIZE else None


def _put_behind(node: Node, made: Node) -> None:
    node.replace_all_uses_with(made, delete_user_cb=lambda user: user is not made)


def _call(dims: int) -> Any:
    return RESIZE if dims == 2 else aten.slice.Tensor


def _arguments(size: tuple[int, ...]) -> tuple[Any, ...]:
    return (list(size), False, None) if len(size) == 2 else (1, 0, *size)
