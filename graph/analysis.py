"""Dimension analysis: which parameter slices must be kept or dropped together.

Walks the graph once, labels every dimension by the rules in `rules/`, and reads channel groups off
the labels. An operator without a rule freezes whatever reaches it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.fx import GraphModule, Node

from .capture import tensor_at
from .labels import Dims, Labels, LabelSet

Rule = Callable[["Walk", Node], Dims]


@dataclass(frozen=True)
class Patch:
    """A size the graph holds as a constant: argument `path` of `node` counts these labels.

    The value after pruning is (kept labels) // `divide`.
    """

    node: str
    path: tuple[int, ...]
    labels: Labels
    divide: int = 1


@dataclass
class Walk:
    """State of one pass: labels of all nodes and parameters so far."""

    module: GraphModule
    labels: LabelSet = field(default_factory=LabelSet)
    dims: dict[Node, Dims] = field(default_factory=dict)
    parameters: dict[str, Dims] = field(default_factory=dict)
    patches: list[Patch] = field(default_factory=list)
    unknown_ops: dict[str, str] = field(default_factory=dict)
    _by_identity: dict[int, str] = field(default_factory=dict)

    def of(self, node: object) -> Dims:
        """Labels of an argument; anything that is no tensor has none."""
        return self.dims.get(node, ()) if isinstance(node, Node) else ()

    def shape(self, node: Node) -> tuple[object, ...]:
        value = node.meta.get("val")
        return tuple(value.shape) if isinstance(value, Tensor) else ()

    def size(self, node: Node, dim: int) -> int | None:
        """Concrete size of a dimension, None where it is symbolic."""
        value = self.shape(node)[dim]
        return value if isinstance(value, int) else None

    def patch(self, node: Node, path: tuple[int, ...], labels: Labels, divide: int = 1) -> None:
        self.patches.append(Patch(node.name, path, labels, divide))

    def freeze(self, dims: Dims, reason: str) -> None:
        for labels in dims:
            self.labels.freeze(labels, reason)

    def parameter(self, node: Node) -> Dims:
        """Labels of a weight or buffer. Tied weights share theirs: they are one parameter."""
        name = str(node.target)
        tensor = tensor_at(self.module, name)
        first = self._by_identity.setdefault(id(tensor), name)
        if first not in self.parameters:
            self.parameters[first] = tuple(self.labels.new(n) for n in tensor.shape)
        return self.parameters[first]


def walk(module: GraphModule) -> Walk:
    from .rules.table import RULES

    state = Walk(module)
    for node in module.graph.nodes:
        if node.op == "get_attr":
            value = node.meta.get("val")
            is_tensor = isinstance(value, Tensor) or isinstance(
                _attribute(module, str(node.target)), Tensor
            )
            state.dims[node] = state.parameter(node) if is_tensor else ()
        elif node.op == "placeholder":
            state.dims[node] = tuple(None for _ in state.shape(node))
        elif node.op == "output":
            for used in node.all_input_nodes:
                state.freeze(state.of(used), "it is part of the model's output")
        elif node.op == "call_function":
            rule = RULES.get(node.target)
            state.dims[node] = rule(state, node) if rule else unknown(state, node)
    return state


def _attribute(module: GraphModule, name: str) -> object:
    owner, _, leaf = name.rpartition(".")
    return getattr(module.get_submodule(owner), leaf, None)


def op_name(node: Node) -> str:
    return str(node.target).removeprefix("aten.") if node.op == "call_function" else node.op


def unknown(state: Walk, node: Node) -> Dims:
    """No rule: keep whole whatever goes in and comes out."""
    reason = f"it reaches `{op_name(node)}` (node `{node.name}`), which has no rule yet"
    for used in node.all_input_nodes:
        dims = state.of(used)
        if any(d is not None for d in dims):
            state.unknown_ops.setdefault(op_name(node), node.name)
        state.freeze(dims, reason)
    value = node.meta.get("val")
    return tuple(None for _ in value.shape) if isinstance(value, torch.Tensor) else ()
