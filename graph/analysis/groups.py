"""Channel groups: units with the same members, and the edits that keep some of them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import TypeAlias

import numpy as np
from torch.fx import GraphModule

from ...core.errors import EditError
from ...core.naming import outside
from ..edits.apply import Constant, Edit, ScaleParameter, Slice
from ..shapes import refresh
from .labeling import walk
from .labels import Labels
from .walk import Patch, Rescale, Walk

SAMPLED = 16
KERNEL_AXIS = "it is a kernel or broadcast axis, tied to no other layer"
Signature: TypeAlias = tuple[tuple[str, int], ...]


@dataclass(frozen=True)
class Member:
    """One axis of one parameter. `indices[u]` are the positions that unit u of the group owns."""

    param: str
    dim: int
    indices: tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Group:
    """`size` units that live in the same parameter axes. `frozen` says why none may be dropped."""

    name: str
    members: tuple[Member, ...]
    size: int
    roots: tuple[int, ...]
    frozen: str | None = None


@dataclass(frozen=True)
class Analysis:
    """`carriers`: by node, the groups whose units its value holds."""

    groups: tuple[Group, ...]
    axes: dict[tuple[str, int], Labels]
    patches: tuple[Patch, ...]
    unknown_ops: dict[str, str]
    carriers: dict[str, tuple[str, ...]] = field(default_factory=dict)
    rescales: tuple[Rescale, ...] = ()

    @property
    def prunable(self) -> tuple[Group, ...]:
        return tuple(g for g in self.groups if g.frozen is None and g.size > 1)


def analyze(module: GraphModule, prune_normalized_dims: bool = False) -> Analysis:
    """All channel groups of a captured graph, prunable or frozen with the reason.

    With `prune_normalized_dims` also those that layer norms and means run over, such as the width
    of a transformer's residual stream: without the dropped channels their statistics are others.
    """
    refresh(module)
    state = walk(module, prune_normalized_dims)
    axes = {
        (name, dim): state.labels.roots(labels)
        for name, dims in state.parameters.items()
        for dim, labels in enumerate(dims)
        if labels is not None
    }
    patches = tuple(
        Patch(p.node, p.path, state.labels.roots(p.labels), p.divide)
        for p in state.patches.values()
    )
    groups = _groups(state, axes)
    rescales = tuple(Rescale(r.param, state.labels.roots(r.labels)) for r in state.rescales)
    carriers = _carriers(state, groups)
    return Analysis(groups, axes, patches, dict(state.unknown_ops), carriers, rescales)


def _carriers(state: Walk, groups: Iterable[Group]) -> dict[str, tuple[str, ...]]:
    """A few labels of each dimension tell whose they are."""
    owner = {root: g.name for g in groups if g.frozen is None for root in g.roots}
    carriers = {}
    for node, dims in state.dims.items():
        names = {
            owner.get(state.labels.find(int(labels[at])), "")
            for labels in dims
            if labels is not None
            for at in np.linspace(0, len(labels) - 1, min(SAMPLED, len(labels))).astype(int)
        }
        if names - {""}:
            carriers[node.name] = tuple(sorted(names - {""}))
    return carriers


def _groups(state: Walk, axes: Mapping[tuple[str, int], Labels]) -> tuple[Group, ...]:
    homes: dict[int, dict[tuple[str, int], list[int]]] = defaultdict(dict)
    for axis, roots in axes.items():
        for index, root in enumerate(roots.tolist()):
            homes[root].setdefault(axis, []).append(index)
    # In the order of the walk, so that a group is named after the first layer that makes it.
    by_signature: dict[tuple[Signature, str | None], list[int]] = defaultdict(list)
    for root, home in homes.items():
        by_signature[(tuple(home), state.labels.frozen(root))].append(root)
    groups = []
    for (signature, reason), units in by_signature.items():
        if reason is None and len(signature) == 1:
            reason = KERNEL_AXIS
        groups.append(_group(signature, reason, units, homes))
    return _named_apart(groups)


def _named_apart(groups: list[Group]) -> tuple[Group, ...]:
    """A layer may hold several groups (fused projections, split outputs): `name`, `name#2` ..."""
    seen: dict[str, int] = defaultdict(int)
    apart = []
    for group in sorted(groups, key=lambda g: g.frozen is not None):
        seen[group.name] += 1
        number = seen[group.name]
        apart.append(replace(group, name=f"{group.name}#{number}") if number > 1 else group)
    return tuple(apart)


def is_kernel_axis(group: Group) -> bool:
    """Axes nothing else shares (kernel height and width) are not channels."""
    return group.frozen == KERNEL_AXIS


def _group(
    signature: tuple[tuple[str, int], ...],
    reason: str | None,
    roots: list[int],
    homes: Mapping[int, Mapping[tuple[str, int], list[int]]],
) -> Group:
    members = tuple(
        Member(param, dim, tuple(tuple(homes[r][(param, dim)]) for r in roots))
        for param, dim in signature
    )
    producer = min(members, key=_rank_as_name)
    return Group(
        outside(producer.param.rpartition(".")[0] or producer.param),
        members,
        len(roots),
        tuple(roots),
        reason,
    )


def _rank_as_name(member: Member) -> tuple[bool, bool]:
    """The first layer that makes the units names them, then what stands outside layers."""
    is_weight = member.param.endswith("weight")
    return (is_weight and member.dim != 0, not (is_weight or member.param.endswith("bias")))


def units_in(
    analysis: Analysis, group: Group, units: Iterable[int]
) -> tuple[str, list[int]] | None:
    """The same units in an analysis of the graph after an edit that slices nothing of them.

    Name of the group and its units there, None where none of its parameters is left.
    """
    for member in group.members:
        for other in analysis.prunable:
            same = next((m for m in other.members if (m.param, m.dim) == (member.param, member.dim)
                         and set(m.indices) & set(member.indices)), None)  # fmt: skip
            if same is not None:
                place = {indices: unit for unit, indices in enumerate(same.indices)}
                matches = (place.get(member.indices[u]) for u in units)
                return other.name, [unit for unit in matches if unit is not None]
    return None


def keep_units(analysis: Analysis, dropped: Mapping[str, Iterable[int]]) -> list[Edit]:
    """Edits that drop units by group name. Raises EditError where that is illegal."""
    gone: set[int] = set()
    by_name = {g.name: g for g in analysis.prunable}
    for name, units in dropped.items():
        if name not in by_name:
            raise EditError(f"`{name}` is not a prunable group of this model.")
        chosen = set(units)
        if len(chosen) >= by_name[name].size:
            raise EditError(f"`{name}` would lose all its {by_name[name].size} units.")
        gone |= {by_name[name].roots[u] for u in chosen}
    removed = np.array(sorted(gone), dtype=np.int64)
    edits: list[Edit] = []
    for (param, dim), roots in analysis.axes.items():
        keep = np.flatnonzero(~np.isin(roots, removed))
        if len(keep) < len(roots):
            edits.append(Slice(param, dim, tuple(keep.tolist())))
    for patch in analysis.patches:
        count = int((~np.isin(patch.labels, removed)).sum())
        if count < len(patch.labels):
            edits.append(Constant(patch.node, patch.path, count // patch.divide))
    for scale in analysis.rescales:
        count = int((~np.isin(scale.labels, removed)).sum())
        if count < len(scale.labels):
            edits.append(ScaleParameter(scale.param, len(scale.labels) / count))
    return edits
