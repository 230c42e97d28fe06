"""`model.graph.json` read into a graph: from an allow-list of calls, with names that are names.

torch.fx generates the source of a `forward` from a graph, so nothing gets there that was not
checked to be an identifier, a path or a literal (program_names.py, graph_values.py).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import Graph, GraphModule, Node
from torch.fx.graph import _PyTreeCodeGen, _PyTreeInfo
from torch.utils import _pytree as pytree

from ..core.errors import first_line
from ..core.json_values import JsonObject
from ..core.naming import outside
from ..graph.example import example
from .graph_targets import call_named, check_arguments
from .graph_values import DTYPES, FORMAT, MEMORY, value_of
from .program_names import is_name, is_path
from .program_specs import spec_text

MAX_NODES = 500_000
MAX_DIMENSIONS, LONGEST_SIZE = 64, 1000
TREES = {None, "builtins.tuple", "builtins.list", "builtins.dict", "collections.OrderedDict"}


def read_graph(text: str, weights: Mapping[str, Tensor] | None, device: str = "cpu") -> GraphModule:
    """The graph with copies of `weights` (by the user's names), in eval mode; without any its
    tensors have no values yet. `device` is where its calls make tensors.

    Raises ValueError for what modelspeed did not write.
    """
    try:
        return _read(json.loads(text), weights, device)
    except ValueError:
        raise
    except Exception as error:  # of torch, for what is of the form and makes no sense
        raise ValueError(first_line(error)) from error


def _read(stored: JsonObject, weights: Mapping[str, Tensor] | None, device: str) -> GraphModule:
    _check(isinstance(stored, dict) and stored.get("format") == FORMAT, "another format")
    module = GraphModule(nn.Module(), Graph())
    for name, tensor in _tensors(stored["tensors"], weights).items():
        _place(module, name, tensor, bool(stored["tensors"][name].get("kept")))
    graph = _graph(stored["nodes"], set(stored["tensors"]), device)
    graph.set_codegen(_PyTreeCodeGen(_wrapping(stored, graph)))
    module.graph = graph  # it takes what is placed, of which no node need read all
    return module.train(False)


def _tensors(rows: JsonObject, weights: Mapping[str, Tensor] | None) -> dict[str, Tensor]:
    made: dict[str, Tensor] = {}
    for name, row in rows.items():
        _check(bool(name) and is_path(name), f"the name {name[:60]}")
        same = row["same"]
        _check(same == name or same in made, f"the name {str(same)[:60]}")
        made[name] = made[same] if same != name else _tensor(name, row, weights)
    return made


def _tensor(name: str, row: JsonObject, weights: Mapping[str, Tensor] | None) -> Tensor:
    shape, kind = row["shape"], row["dtype"]
    good = kind in DTYPES and row["layout"] in MEMORY and row["kind"] in ("parameter", "buffer")
    _check(good and _is_shape(shape), f"`{name[:60]}`")
    dtype, layout = getattr(torch, kind), MEMORY[row["layout"]]
    if weights is None:
        value = torch.empty(shape, dtype=dtype, device="meta", memory_format=layout)
    else:
        weight = weights.get(outside(name))
        if weight is None or list(weight.shape) != shape or weight.dtype != dtype:
            raise ValueError(f"`{outside(name)[:60]}` is not in the weights with the same shape")
        # A copy: tensors of a file change with it.
        value = torch.empty_like(weight, memory_format=layout).copy_(weight)
    if row["kind"] == "buffer":
        return value
    return nn.Parameter(value, requires_grad=row.get("trained") is True)


def _place(root: nn.Module, name: str, tensor: Tensor, kept: bool) -> None:
    *path, leaf = name.split(".")
    for part in path:
        if part not in root._modules:
            root.add_module(part, nn.Module())
        root = root._modules[part]  # type: ignore[assignment]
    if isinstance(tensor, nn.Parameter):
        root.register_parameter(leaf, tensor)
    else:
        root.register_buffer(leaf, tensor, persistent=kept)


def _graph(rows: list[JsonObject], tensors: set[str], device: str) -> Graph:
    _check(isinstance(rows, list) and len(rows) <= MAX_NODES, "too many nodes")
    graph = Graph()
    nodes: dict[str, Node] = {}
    for row in rows:
        op, name = row["op"], row["name"]
        _check(isinstance(name, str) and is_name(name), f"the name {str(name)[:60]}")
        args = tuple(_moved(value_of(value, nodes), device) for value in row.get("args", []))
        kwargs = {k: _moved(value_of(v, nodes), device) for k, v in row.get("kwargs", {}).items()}
        node = graph.create_node(op, _target(row, tensors, args, kwargs), args, kwargs, name=name)
        # Names are given once: a second one of the kind would become another.
        _check(node.name == name and name not in nodes, f"the name {name[:60]}")
        if "val" in row:
            node.meta["val"] = _value(row["val"])
        nodes[name] = node
    _check(bool(rows) and [r["op"] for r in rows].count("output") == 1, "no output")
    return graph


def _target(
    row: JsonObject, tensors: set[str], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    op, target = row["op"], row.get("target", "output")
    _check(isinstance(target, str), "a target that is not a text")
    if op == "call_function":
        check_arguments(target, args, kwargs)
        return call_named(target)
    _check(not kwargs, f"keywords of a node of the kind {str(op)[:20]}")
    if op == "get_attr" and target in tensors and not args:
        return target
    if op == "placeholder" and is_name(target) and not args:
        return target
    if op == "output" and len(args) == 1:
        return "output"
    raise ValueError(f"a node of the kind {str(op)[:20]}")


def _moved(value: Any, device: str) -> Any:
    """Where a graph says that it makes a tensor, it makes it on the device that it runs on."""
    return torch.device(device) if isinstance(value, torch.device) else value


def _value(stored: Any) -> Any:
    if isinstance(stored, dict):
        return tuple(_value(part) for part in stored["all"])
    dtype, sizes = stored
    fits = isinstance(sizes, list) and len(sizes) <= MAX_DIMENSIONS
    texts = fits and all((type(n) is int and n >= 0) or _is_text(n) for n in sizes)
    _check(texts and dtype in DTYPES, "an example of no known form")
    return example(sizes, getattr(torch, dtype))


def _is_text(size: object) -> bool:
    return isinstance(size, str) and len(size) <= LONGEST_SIZE


def _is_shape(shape: object) -> bool:
    return (
        isinstance(shape, list)
        and len(shape) <= MAX_DIMENSIONS
        and all(type(n) is int and n >= 0 for n in shape)
    )


def _wrapping(stored: JsonObject, graph: Graph) -> _PyTreeInfo:
    names = stored["arguments"]
    _check(isinstance(names, list), "no arguments")
    for name in names:
        _check(isinstance(name, str) and is_name(name), f"the name {str(name)[:60]}")
    specs = [
        pytree.treespec_loads(_plain_tree(spec_text(stored[key], key == "in_spec")))
        for key in ("in_spec", "out_spec")
    ]
    inputs = sum(node.op == "placeholder" for node in graph.nodes)
    outputs = graph.output_node().args[0]
    count = len(outputs) if isinstance(outputs, (list, tuple)) else 1
    _check(specs[0].num_leaves == inputs and specs[1].num_leaves == count, "another call's tree")
    return _PyTreeInfo(names, *specs)


def _plain_tree(text: str) -> str:
    """Containers of Python's own: others are known where the process registered them."""
    waiting = [json.loads(text)[1]]
    while waiting:
        node = waiting.pop()
        _check(node["type"] in TREES, f"the container {str(node['type'])[:60]}")
        waiting += node["children_spec"]
    return text


def _check(good: bool, what: str) -> None:
    if not good:
        raise ValueError(f"it holds {what}")
