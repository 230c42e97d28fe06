"""State of one labeling pass, and the types that rules are written in."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from torch import Tensor
from torch.fx import GraphModule, Node

from ..capture import tensor_at
from .labels import Dims, Labels, LabelSet

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
class ReshapeSplit:
    """Where a reshape had several axes to keep its units along: how many, and what it chose."""

    node: str
    options: int
    labels: Labels


@dataclass
class Walk:
    """State of one pass: labels of all nodes and parameters so far.

    `choices` says by node name which of its options a reshape takes, the first unless given.
    `prune_normalized_dims` lets norms and means run over fewer channels, which changes their
    statistics.
    """

    module: GraphModule
    labels: LabelSet = field(default_factory=LabelSet)
    dims: dict[Node, Dims] = field(default_factory=dict)
    parameters: dict[str, Dims] = field(default_factory=dict)
    patches: dict[tuple[Node, tuple[int, ...]], Patch] = field(default_factory=dict)
    size_users: dict[Node, set[Node]] = field(default_factory=dict)
    prune_normalized_dims: bool = False
    parts: dict[Node, Parts] = field(default_factory=dict)
    choices: dict[str, int] = field(default_factory=dict)
    splits: list[ReshapeSplit] = field(default_factory=list)
    rescales: list[Rescale] = field(default_factory=list)
    unknown_ops: dict[str, str] = field(default_factory=dict)
    _by_identity: dict[int, str] = field(default_factory=dict)

    def of(self, node: object) -> Dims:
        """Labels of an argument; anything that is not a tensor has none."""
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
            self.splits.append(ReshapeSplit(node.name, len(options), labels))
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
        """True if the graph reads this parameter only at `node`, under whatever name."""
        tensor = tensor_at(self.module, str(node.target))
        same = (n for n in self.module.graph.nodes if n.op == "get_attr" and n is not node)
        return all(attribute_at(self.module, str(n.target)) is not tensor for n in same)


def attribute_at(module: GraphModule, name: str) -> object:
    owner, _, leaf = name.rpartition(".")
    return getattr(module.get_submodule(owner), leaf, None)
