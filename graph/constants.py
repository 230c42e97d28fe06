"""Weights that are computed from parameters alone, computed once.

Standardized, normed or masked weights are constants of a trained model: computing them in every
call costs time, and their statistics run over the input channels, which would have to stay whole.
"""

from __future__ import annotations

from operator import attrgetter
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import GraphModule, Node
from torch.fx.node import map_arg

from .state import written_buffers

_CHECKS = (torch.ops.aten._assert_tensor_metadata.default,)
_LAYERS = {
    "linear", "conv1d", "conv2d", "conv3d",
    "conv_transpose1d", "conv_transpose2d", "conv_transpose3d",
}  # fmt: skip
# What only moves a parameter about leaves it a parameter, shared with whoever else reads it.
_MOVES = {"view", "reshape", "permute", "transpose", "t", "to", "contiguous", "clone", "alias",
          "unsqueeze", "squeeze", "expand", "slice", "select", "flatten", "detach"}  # fmt: skip


def fold_computed_weights(module: GraphModule) -> None:
    """Put the values in place of the parameters they come from, under the name of one of them."""
    constant: set[Node] = set()
    state = set(written_buffers(module))
    for node in list(module.graph.nodes):
        inputs = set(node.all_input_nodes)
        if node.op == "get_attr":
            if str(node.target) not in state:
                constant.add(node)
        elif node.op == "call_function" and inputs and inputs <= constant:
            if node.target in _CHECKS:  # it holds for ever, and would hold on to what it checks
                module.graph.erase_node(node)
            else:
                constant.add(node)
        elif _word(node) in _LAYERS and node.args[1] in constant:
            _fold(module, node.args[1])


def _fold(module: GraphModule, weight: Node) -> None:
    steps = _steps(module, weight)
    computed = [n for n in steps if n.op == "call_function"]
    if all(_word(n) in _MOVES for n in computed) or not _private(computed, {*steps}):
        return
    value = _value(module, steps)
    sources = [n for n in steps if n.op == "get_attr"]
    home = next((n for n in sources if _replaces(module, n, value, steps)), None)
    if home is None:
        return
    _put(module, home, value)
    weight.replace_all_uses_with(home)
    for step in reversed(steps):
        if not step.users:
            _erase(module, step)


def _steps(module: GraphModule, last: Node) -> list[Node]:
    wanted, left = {last}, [last]
    while left:
        for used in left.pop().all_input_nodes:
            if used not in wanted:
                wanted.add(used)
                left.append(used)
    return [n for n in module.graph.nodes if n in wanted]


def _word(node: Node) -> str:
    return str(node.target).removeprefix("aten.").partition(".")[0]


def _private(computed: list[Node], steps: set[Node]) -> bool:
    """Nothing but layers reads the result, nothing the steps to it, and none is overwritten."""
    weight = computed[-1]
    schemas = (getattr(n.target, "_schema", None) for n in computed)
    return not any(schema is not None and schema.is_mutable for schema in schemas) and all(
        user in steps or (node is weight and _word(user) in _LAYERS)
        for node in computed
        for user in node.users
    )


def _value(module: GraphModule, steps: list[Node]) -> Tensor:
    results: dict[Node, Any] = {}
    with torch.no_grad():
        for step in steps:
            if step.op == "get_attr":
                results[step] = _tensor(module, step)
            else:
                assert callable(step.target)
                args, kwargs = map_arg((step.args, step.kwargs), lambda n: results[n])
                results[step] = step.target(*args, **kwargs)
    value = results[steps[-1]]
    assert isinstance(value, Tensor)
    return value.detach().clone()


def _replaces(module: GraphModule, home: Node, value: Tensor, steps: list[Node]) -> bool:
    """True for a parameter of the same kind that nothing else reads, under no name.

    Integers stay: what they are multiplied with is what a quantized weight is.
    """
    old = _tensor(module, home)
    if old.dtype != value.dtype:
        return False
    same = [n for n in module.graph.nodes if n.op == "get_attr" and _tensor(module, n) is old]
    readers = {user for node in same for user in node.users}
    return isinstance(old, nn.Parameter) and old.shape == value.shape and readers <= {*steps}


def _tensor(module: GraphModule, node: Node) -> Any:
    return attrgetter(str(node.target))(module)


def _put(module: GraphModule, home: Node, value: Tensor) -> None:
    owner, _, leaf = str(home.target).rpartition(".")
    trained = _tensor(module, home).requires_grad
    setattr(module.get_submodule(owner), leaf, nn.Parameter(value, requires_grad=trained))


def _erase(module: GraphModule, node: Node) -> None:
    module.graph.erase_node(node)
    if node.op == "get_attr" and not any(n.target == node.target for n in module.graph.nodes):
        owner, _, leaf = str(node.target).rpartition(".")
        delattr(module.get_submodule(owner), leaf)
