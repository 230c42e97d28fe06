"""A whole graph in half precision; its inputs and outputs stay float32."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.fx import GraphModule, Node

from ...core.errors import EditError
from ..capture import tensor_at
from ..operators import aten
from ..state import written_buffers
from .resizing import RESIZE, resized

HALVES = {"bfloat16": torch.bfloat16, "float16": torch.float16}


def cast(module: GraphModule, name: str, keep: Sequence[Node] = ()) -> None:
    """Weights, constants and computation of `module` in `name`, in place; layers of `keep` and
    what they read stay float32."""
    if name not in HALVES:
        raise EditError(f"`{name}` is not a half-precision dtype; known: {', '.join(HALVES)}.")
    if state := float_state(module):
        raise EditError(f"`{state}` is written in each call; in `{name}` its errors would add up.")
    dtype, kept = HALVES[name], {str(n.target) for node in keep for n in _parameters(node)}
    for path, holder in module.named_modules():
        for key, parameter in holder._parameters.items():
            if _goes(parameter, f"{path}.{key}".lstrip("."), kept):
                assert parameter is not None
                parameter.data = parameter.data.to(dtype)
        for key, buffer in holder._buffers.items():
            if _goes(buffer, f"{path}.{key}".lstrip("."), kept):
                assert buffer is not None
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
    for node in keep:
        _float(module, node, dtype)
    for node in keep:
        _join(node)


def float_state(module: GraphModule) -> str | None:
    """A float tensor that a call writes, if there is one."""
    names = written_buffers(module)
    return next((n for n in names if tensor_at(module, n).is_floating_point()), None)


def _parameters(node: Node) -> list[Node]:
    return [n for n in node.all_input_nodes if n.op == "get_attr"]


def _goes(tensor: Tensor | None, name: str, kept: set[str]) -> bool:
    return tensor is not None and tensor.dtype == torch.float32 and name not in kept


def _float(module: GraphModule, node: Node, dtype: torch.dtype) -> None:
    """Layer `node` alone in float32, half precision around it."""
    for kept in (node, *_parameters(node)):
        if isinstance(value := kept.meta.get("val"), Tensor):
            kept.meta["val"] = value.to(torch.float32)
    source = node.args[0]
    assert isinstance(source, Node)
    with module.graph.inserting_before(node):
        wide = module.graph.call_function(aten.to.dtype, (source, torch.float32))
    with module.graph.inserting_after(node):
        narrow = module.graph.call_function(aten.to.dtype, (node, dtype))
    node.replace_all_uses_with(narrow, delete_user_cb=lambda user: user is not narrow)
    node.args = (wide, *node.args[1:])
    for cast, value, kind in ((wide, source, torch.float32), (narrow, node, dtype)):
        if isinstance(value.meta.get("val"), Tensor):
            cast.meta["val"] = value.meta["val"].to(kind)


def _join(node: Node) -> None:
    """Let a value that was narrowed and widened again go on as the float32 it was."""
    for wide in (node.args[0], *(w for narrow in node.users for w in narrow.users)):
        assert isinstance(wide, Node)
        narrow = wide.args[0] if wide.target is aten.to.dtype else None
        if not isinstance(narrow, Node) or narrow.target is not aten.to.dtype:
            continue
        whole = narrow.args[0]
        assert isinstance(whole, Node)
        value = whole.meta.get("val")
        is_float = isinstance(value, Tensor) and value.dtype == torch.float32
        if wide.args[1] is torch.float32 and is_float:
            wide.replace_all_uses_with(whole)


def _at_border(module: GraphModule, node: Node, dtype: torch.dtype) -> None:
    value = node.meta.get("val")
    if not isinstance(value, Tensor) or value.dtype != torch.float32:
        return
    node = resized(node) or node  # CPUs have no half-precision kernel that resizes
    with module.graph.inserting_after(node):
        cast = module.graph.call_function(aten.to.dtype, (node, dtype))
    cast.meta["val"] = node.meta["val"].to(dtype)
    node.replace_all_uses_with(cast, delete_user_cb=lambda user: user is not cast)


def _back(module: GraphModule, node: Node) -> None:
    def widened(read: Node) -> Node:
        value = read.meta.get("val")
        if not isinstance(value, Tensor) or value.dtype not in HALVES.values():
            return read
        with module.graph.inserting_before(node):
            wide = module.graph.call_function(aten.to.dtype, (read, torch.float32))
        wide.meta["val"] = value.to(torch.float32)
        return wide

    node.args = torch.fx.map_arg(node.args, widened)


def _note(node: Node, dtype: torch.dtype) -> None:
    """Later passes look at what a node gives."""
    value = node.meta.get("val")
    inner = node.op != "placeholder" and node.target not in (aten.to.dtype, RESIZE)
    if inner and isinstance(value, Tensor) and value.dtype == torch.float32:
        node.meta["val"] = value.to(dtype)
