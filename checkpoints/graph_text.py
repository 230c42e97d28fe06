"""A captured graph as JSON (`model.graph.json`): read in milliseconds, where torch's own reader of
`model.pt2` imports its compiler and takes seconds.

It holds nodes, names and forms of tensors, no weights. What it has no form for (graphs within
graphs, a user's own containers) is in `model.pt2` alone.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch._ops import OpOverload
from torch.fx import GraphModule, Node
from torch.fx.graph import _PyTreeCodeGen
from torch.utils import _pytree as pytree

from ..core.json_values import JsonObject
from ..graph.lowering.live import tensors_of
from .graph_targets import PLAIN_CALLS
from .graph_values import FORMAT, MEMORY, Unstorable, json_of


def graph_text(module: GraphModule) -> str:
    """`module`, a captured graph, without its weights. Raises Unstorable."""
    wrapping = module.graph._codegen
    info = wrapping.pytree_info if isinstance(wrapping, _PyTreeCodeGen) else None
    if info is None or info.in_spec is None or info.out_spec is None:
        raise Unstorable("arguments that are passed on as they are")
    tensors = tensors_of(module)
    return json.dumps(
        {
            "format": FORMAT,
            "arguments": list(info.orig_args),
            "in_spec": pytree.treespec_dumps(info.in_spec),
            "out_spec": pytree.treespec_dumps(info.out_spec),
            "tensors": _tensors(module, tensors),
            "nodes": [_node(node, tensors) for node in module.graph.nodes],
        },
        separators=(",", ":"),
    )


def _tensors(module: nn.Module, tensors: Mapping[str, Tensor]) -> JsonObject:
    first: dict[int, str] = {}
    rows: JsonObject = {}
    for name, tensor in tensors.items():
        owner, _, leaf = name.rpartition(".")
        holder = module.get_submodule(owner)
        rows[name] = {
            "kind": "parameter" if leaf in holder._parameters else "buffer",
            "dtype": str(tensor.dtype).removeprefix("torch."),
            "shape": list(tensor.shape),
            "layout": _layout(name, tensor),
            "trained": tensor.requires_grad,
            "kept": leaf not in holder._non_persistent_buffers_set,
            "same": first.setdefault(id(tensor), name),
        }
    return rows


def _layout(name: str, tensor: Tensor) -> str:
    if tensor.layout is torch.strided and not tensor.is_quantized:
        for name_of_order, order in MEMORY.items():
            if tensor.is_contiguous(memory_format=order):
                return name_of_order
    raise Unstorable(f"`{name}`, whose values lie in an order of their own")


def _node(node: Node, tensors: Mapping[str, Tensor]) -> JsonObject:
    row: JsonObject = {"op": node.op, "name": node.name}
    if node.op == "placeholder":
        if node.args or node.kwargs:
            raise Unstorable("an argument with a default")
        row["target"] = str(node.target)
    elif node.op == "get_attr":
        if str(node.target) not in tensors:
            raise Unstorable(f"`{node.target}`, which is a graph of its own")
        row["target"] = str(node.target)
    elif node.op == "call_function":
        row["target"] = _target(node.target)
    elif node.op != "output":
        raise Unstorable(f"a node of the kind {node.op}")
    if node.args:
        row["args"] = [json_of(value) for value in node.args]
    if node.kwargs:
        row["kwargs"] = {name: json_of(value) for name, value in node.kwargs.items()}
    value = _value(node.meta.get("val"))
    return row if value is None or node.op == "output" else row | {"val": value}


def _target(target: Callable[..., Any] | str) -> str:
    if isinstance(target, OpOverload):
        return f"torch.ops.{target}"
    for name, call in PLAIN_CALLS.items():
        if target is call:
            return name
    raise Unstorable(f"a call of {str(target)[:60]}")


def _value(value: object) -> Any:
    """Shape and number format of an example; None where it is not of tensors."""
    if isinstance(value, Tensor):
        sizes = [size if isinstance(size, int) else str(size) for size in value.shape]
        return [str(value.dtype).removeprefix("torch."), sizes]
    if isinstance(value, (list, tuple)) and value and all(isinstance(v, Tensor) for v in value):
        return {"all": [_value(part) for part in value]}
    return None


def same_graph(one: GraphModule, other: GraphModule) -> bool:
    """Do they make the same calls, by the same names, on equal tensors? Raises Unstorable."""
    mine, theirs = tensors_of(one), tensors_of(other)
    return graph_text(one) == graph_text(other) and all(
        torch.equal(tensor, theirs[name]) for name, tensor in mine.items()
    )
