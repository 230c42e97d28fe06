"""Dimension analysis: which parameter slices must be kept or dropped together.

Walks the graph once, labels every dimension by the rules in `rules/`, and reads channel groups off
the labels. An operator without a rule freezes whatever reaches it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from torch import Tensor
from torch.fx import GraphModule, Node

from .capture import tensor_at
from .labels import Dims, Labels, LabelSet
from .state import written_buffers

Parts: TypeAlias = list[Dims]
Rule = Callable[["Walk", Node], "Dims | Parts"]


class RuleError(Exception):
    """A rule meets a form of its operator that it does not understand; says which."""


@dataclass(frozen=True)
class Patch:
    """A size the graph holds as a constant: argument `path` of `node` counts these labels.

    The value after pruning is (kept labels) // `divide`.
    """

    node: str
    path: tuple[int, ...]
    labels: Labels
    divide: int = 1


@dataclass(frozen=True)
class Rescale:
    """A parameter to be multiplied by n / kept where some of these n labels go."""

    param: str
    labels: Labels


@dataclass(frozen=True)
class Split:
    """Where a reshape had several axes to keep its units along: how many, and what it chose."""

    node: str
    options: int
    labels: Labels


@dataclass
class Walk:
    """State of one pass: labels of all nodes and parameters so far.

    `choices` says by node name which of its options a reshape takes, the first unless given.
    `through_norms` lets norms and means run over fewer channels, which changes their statistics.
    """

    module: GraphModule
    labels: LabelSet = field(default_factory=LabelSet)
    dims: dict[Node, Dims] = field(default_factory=dict)
    parameters: dict[str, Dims] = field(default_factory=dict)
    patches: dict[tuple[Node, tuple[int, ...]], Patch] = field(default_factory=dict)
    size_users: dict[Node, set[Node]] = field(default_factory=dict)
    through_norms: bool = False
    parts: dict[Node, Parts] = field(default_factory=dict)
    choices: dict[str, int] = field(default_factory=dict)
    splits: list[Split] = field(default_factory=list)
    rescales: list[Rescale] = field(default_factory=list)
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

    def patch(
        self,
        node: Node,
        path: tuple[int, ...],
        labels: Labels,
        divide: int = 1,
        user: Node | None = None,
    ) -> None:
        """Note a size to be changed. `user` is the operator that reads it, where `node` is none."""
        patch = self.patches.setdefault((node, path), Patch(node.name, path, labels, divide))
        self.labels.join(patch.labels, labels, f"node `{node.name}` gives several sizes")
        if user is not None:
            self.size_users.setdefault(node, set()).add(user)

    def choose(self, node: Node, options: Sequence[int], labels: Labels) -> int:
        """One of `options`, best first, noting what hangs on it."""
        if self.labels.frozen(int(labels[0])) is None:
            self.splits.append(Split(node.name, len(options), labels))
        return options[self.choices.get(node.name, 0) % len(options)]

    def broadcast(self, node: Node, operands: Sequence[Node], position: int) -> Labels | None:
        """Labels of dimension `position` (from the end) of operands that are aligned there."""
        total = self.shape(node)[position]
        reason = f"node `{node.name}` combines it with a dimension that stays whole"
        labels: Labels | None = None
        seen = False
        for operand in operands:
            dims = self.of(operand)
            if len(dims) < -position:
                continue
            if self.shape(operand)[position] == 1 and total != 1:
                # Stays of size 1 whatever the other side keeps, so it must not be dropped.
                self.labels.freeze(dims[position], f"it is broadcast by node `{node.name}`")
                continue
            here = dims[position]
            labels = self.labels.join(labels, here, reason) if seen else here
            seen = True
        return labels

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

    def is_untied(self, node: Node) -> bool:
        """Whether the graph reads this parameter at `node` alone, under whatever name."""
        tensor = tensor_at(self.module, str(node.target))
        same = (n for n in self.module.graph.nodes if n.op == "get_attr" and n is not node)
        return all(_attribute(self.module, str(n.target)) is not tensor for n in same)


ROUNDS = 3


def walk(module: GraphModule, through_norms: bool = False) -> Walk:
    """Label the whole graph; splits whose choice ends frozen are walked again with their next."""
    choices: dict[str, int] = {}
    state = _walk_once(module, choices, through_norms)
    for _ in range(ROUNDS):
        stuck = [s for s in _stuck(state) if choices.get(s.node, 0) + 1 < s.options]
        if not stuck:
            break
        for split in stuck:
            choices[split.node] = choices.get(split.node, 0) + 1
        state = _walk_once(module, choices, through_norms)
    lost = [s.node for s in _stuck(state) if choices.pop(s.node, 0)]
    return _walk_once(module, choices, through_norms) if lost else state


def _stuck(state: Walk) -> list[Split]:
    return [s for s in state.splits if state.labels.frozen(int(s.labels[0])) is not None]


def _walk_once(module: GraphModule, choices: dict[str, int], through_norms: bool) -> Walk:
    state = Walk(module, choices=dict(choices), through_norms=through_norms)
    for node in module.graph.nodes:
        if node.op == "get_attr":
            value = node.meta.get("val")
            is_tensor = isinstance(value, Tensor) or isinstance(
                _attribute(module, str(node.target)), Tensor
            )
            state.dims[node] = state.parameter(node) if is_tensor else ()
        elif node.op == "placeholder":
            state.dims[node] = _whole(state, node)
        elif node.op == "output":
            for used in node.all_input_nodes:
                state.freeze(state.of(used), "it is part of the model's output")
        elif node.op == "call_function":
            state.dims[node] = _call(state, node)
    _keep_sizes_of_others(state)
    _keep_what_lasts(state)
    return state


def _keep_sizes_of_others(state: Walk) -> None:
    """A size read by an operator that does not follow its labels must not change."""
    for (node, _), patch in state.patches.items():
        strangers = set(node.users) - state.size_users.get(node, set(node.users))
        if strangers:
            state.labels.freeze(patch.labels, f"its size `{node.name}` is used for other things")


def _keep_what_lasts(state: Walk) -> None:
    """Users read, reset and move state between calls, so it keeps its shape."""
    written = set(written_buffers(state.module))
    for node in state.dims:
        if node.op == "get_attr" and str(node.target) in written:
            state.freeze(state.of(node), f"`{node.target}` keeps it from one call to the next")


def _call(state: Walk, node: Node) -> Dims:
    from .rules.table import RULES

    rule = RULES.get(node.target)
    if rule is None:
        return unknown(state, node, "has no rule yet")
    try:
        result = rule(state, node)
    except (RuleError, AssertionError, IndexError, ValueError, TypeError) as error:
        return unknown(state, node, f"is of a form without a rule: {error or type(error).__name__}")
    if isinstance(result, list):
        state.parts[node] = result
        return ()
    if not _fits(state, node, result):
        state.freeze(result, f"the shapes of node `{node.name}` are not understood")
        return unknown(state, node, "has shapes that are not understood")
    return result


def _fits(state: Walk, node: Node, dims: Dims) -> bool:
    shape = state.shape(node)
    return len(shape) == len(dims) and all(
        labels is None or not isinstance(size, int) or len(labels) == size
        for labels, size in zip(dims, shape, strict=True)
    )


def _whole(state: Walk, node: Node) -> Dims:
    return tuple(None for _ in state.shape(node))


def _attribute(module: GraphModule, name: str) -> object:
    owner, _, leaf = name.rpartition(".")
    return getattr(module.get_submodule(owner), leaf, None)


def op_name(node: Node) -> str:
    return str(node.target).removeprefix("aten.") if node.op == "call_function" else node.op


def unknown(state: Walk, node: Node, why: str) -> Dims:
    """No rule: keep whole whatever goes in and comes out."""
    reason = f"it reaches `{op_name(node)}` (node `{node.name}`), which {why}"
    for used in node.all_input_nodes:
        for dims in (state.of(used), *state.parts.get(used, ())):
            if any(d is not None for d in dims):
                state.unknown_ops.setdefault(op_name(node), node.name)
            state.freeze(dims, reason)
    return _whole(state, node)
