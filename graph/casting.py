"""A whole graph in half precision; its inputs and outputs stay float32."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Node

from ..core.errors import EditError
from .resizing import RESIZE, resized

aten: Any = torch.ops.aten
HALVES = {"bfloat16": torch.bfloat16, "float16": torch.float16}


def cast(module: GraphModule, name: str) -> None:
    """Weights, constants and computation of `module` in `name`, in place."""
    if name not in HALVES:
        raise EditError(f"`{name}` is no half precision; known: {', '.join(HALVES)}.")
    dtype = HALVES[name]
    for holder in module.modules():
        for parameter in holder._parameters.values():
            if parameter is not None and parameter.dtype == torch.float32:
                parameter.data = parameter.data.to(dtype)
        for key, buffer in holder._buffers.items():
            if buffer is not None and buffer.dtype == torch.float32:
                holder._buffers[key] = buffer.to(dtype)
    for node in list(module.graph.nodes):
        if node.op == "placeholder":
            _at_border(module, node, dtype)
        elif node.op == "output":
            _back(module, node)
        elif node.op == "call_function":  # the graph's own casts and constants, such as zeros
            node.args = tuple(dtype if a is torch.float32 else a for a in node.args)
            node.kwargs = {k: dtype if a is torch.float32 else a for k, a in node.kwargs.items()}
        _note(node, dtype)


def _at_border(module: GraphModule, node: Node, dtype: torch.dtype) -> None:
    value = node.meta.get("val")
    if not isinstance(value, Tensor) or value.dtype != torch.float32:
        return
    node = resized(node) or node  # CPUs have no half-precision kernel that resizes
    with module.graph.inserting_after(node):
        made = module.graph.call_function(aten.to.dtype, (node, dtype))
    made.meta["val"] = node.meta["val"].to(dtype)
    node.replace_all_uses_with(made, delete_user_cb=lambda user: user is not made)


def _back(module: GraphModule, node: Node) -> None:
    def widened(found: Node) -> Node:
        value = found.meta.get("val")
        if not isinstance(value, Tensor) or value.dtype not in HALVES.values():
            return found
        with module.graph.inserting_before(node):
            made = module.graph.call_function(aten.to.dtype, (found, torch.float32))
        made.meta["val"] = value.to(torch.float32)
        return made

    node.args = torch.fx.map_arg(node.args, widened)


def _note(node: Node, dtype: torch.dtype) -> None:
    """Later passes look at what a node gives."""
    value = node.meta.get("val")
    inner = node.op != "placeholder" and node.target not in (aten.to.dtype, RESIZE)
    if inner and isinstance(value, Tensor) and value.dtype == torch.float32:
        node.meta["val"] = value.to(dtype)
