"""Nodes of a graph that write into tensors, and values that share a written tensor's memory."""

from __future__ import annotations

from collections.abc import Iterator
from operator import attrgetter, getitem

import torch
from torch import Tensor
from torch._ops import HigherOrderOperator, OpOverload
from torch.fx import GraphModule, Node

from .operators import aten

# In training mode they update statistics, which their schema does not say; nothing else reads them.
_STATISTICS = (aten.batch_norm.default, aten.instance_norm.default)
# Return their argument itself, or views of it, without saying so in their schema.
_UNTOLD = {
    "dropout", "feature_dropout", "alpha_dropout", "feature_alpha_dropout", "type_as", "einsum",
    "unsafe_chunk", "unsafe_split", "unsafe_split_with_sizes", "channel_shuffle", "sum_to_size",
}  # fmt: skip


def written(node: Node) -> tuple[Node, ...]:
    """The arguments whose values a call overwrites."""
    target = node.target
    if node.op != "call_function" or target is aten.detach_.default:
        return ()
    if isinstance(target, HigherOrderOperator):
        return _written_inside(node)
    if target in _STATISTICS and node.args[5]:
        return tuple(a for a in node.args[3:5] if isinstance(a, Node))
    if not isinstance(target, OpOverload) or not target._schema.is_mutable:
        return ()
    return tuple(
        value
        for argument, values in _arguments(node)
        if argument.alias_info is not None and argument.alias_info.is_write
        for value in values
    )


class Aliases:
    """Values that may share memory, as sets: views, results of in-place calls, tied tensors."""

    def __init__(self, module: GraphModule) -> None:
        self._parent: dict[Node, Node] = {}
        self.nodes = list(module.graph.nodes)
        by_memory: dict[int, Node] = {}
        for node in self.nodes:
            if node.op == "get_attr":
                tensor = attrgetter(str(node.target))(module)
                self._join(by_memory.setdefault(_memory(tensor), node), node)
            elif node.op == "call_function":
                for other in _shares(node):
                    self._join(other, node)
        self._members: dict[Node, list[Node]] = {}
        for node in self.nodes:
            self._members.setdefault(self._root(node), []).append(node)

    def of(self, node: Node) -> list[Node]:
        """`node` and all that may share its memory, in graph order."""
        return self._members[self._root(node)]

    def _root(self, node: Node) -> Node:
        while (above := self._parent.get(node, node)) is not node:
            node = above
        return node

    def _join(self, a: Node, b: Node) -> None:
        self._parent[self._root(b)] = self._root(a)


def hazards(module: GraphModule) -> list[Node]:
    """The calls whose writing is seen by more than what reads their result.

    They write into an input or a tensor of the module, or into memory that is read later by
    another way than through the result. Left are activations and sums that work in place on a
    fresh value, and plain copies into a buffer when all else that reads it has done so.
    """
    writes = [n for n in module.graph.nodes if n.target not in _STATISTICS and written(n)]
    if not writes:
        return []
    aliases = Aliases(module)
    place = {node: at for at, node in enumerate(aliases.nodes)}
    return [
        node
        for node in writes
        if any(_is_seen(node, aliases.of(value), place) for value in written(node))
    ]


def is_written(tensor: Node) -> bool:
    """A tensor of the module that a call writes, so it is not a constant."""
    graph, name = tensor.graph, tensor.target
    same = [n for n in graph.nodes if n.op == "get_attr" and n.target == name]
    return any(n in written(user) for n in same for user in n.users)


def is_last_write(node: Node) -> bool:
    """A copy into a tensor of the module, as functional graphs end with."""
    into = node.args[0] if node.target is aten.copy_.default else None
    return isinstance(into, Node) and into.op == "get_attr" and not node.users


def without_writing(node: Node) -> bool:
    """Let a call give a new value instead, where its operator has such a form."""
    target = node.target
    if not isinstance(target, OpOverload) or target.namespace != "aten":
        return False
    name = target._schema.name.removeprefix("aten::")
    form = getattr(getattr(aten, name.removesuffix("_"), None), target._overloadname, None)
    if not name.endswith("_") or form is None:
        return False
    node.target = form
    return True


def write_alone(module: GraphModule) -> None:
    """In place, of a graph without hazards: what others have read is not overwritten either.

    A kernel that takes several calls together runs where the last of them stood, so it may read
    after what was written once it had read.
    """
    aliases = Aliases(module)
    for node in aliases.nodes:
        sharing = [other for value in written(node) for other in aliases.of(value)]
        if not is_last_write(node) and any(u is not node for u in _other_users(node, sharing)):
            without_writing(node)


def _other_users(node: Node, sharing: list[Node]) -> Iterator[Node]:
    """Nodes that read memory that `node` writes, but not through its result."""
    through = {node}
    for other in sharing:
        if through.intersection(other.all_input_nodes):
            through.add(other)
    yield from (user for other in sharing if other not in through for user in other.users)


def _is_seen(node: Node, sharing: list[Node], place: dict[Node, int]) -> bool:
    later = any(place[user] > place[node] for user in _other_users(node, sharing))
    lasting = any(other.op != "call_function" for other in sharing)
    return later or (lasting and not is_last_write(node))


def _memory(tensor: object) -> int:
    if isinstance(tensor, Tensor) and tensor.layout is torch.strided:
        return int(tensor.untyped_storage()._cdata)
    return -id(tensor)


def _shares(node: Node) -> Iterator[Node]:
    """The arguments whose memory the result may be."""
    target = node.target
    if target is getitem:
        yield from node.all_input_nodes
    if not isinstance(target, OpOverload):
        return
    untold = target._schema.name.removeprefix("aten::").removesuffix("_") in _UNTOLD
    for argument, values in _arguments(node):
        if argument.alias_info is not None or untold:
            yield from values


def _arguments(node: Node) -> Iterator[tuple[torch.Argument, list[Node]]]:
    """The schema's arguments with the nodes that are given for them."""
    schema = node.target._schema  # type: ignore[union-attr]
    for place, argument in enumerate(schema.arguments):
        by_place = place < len(node.args) and not argument.kwarg_only
        value = node.args[place] if by_place else node.kwargs.get(argument.name)
        many = value if isinstance(value, (list, tuple)) else [value]
        yield argument, [v for v in many if isinstance(v, Node)]


def _written_inside(node: Node) -> tuple[Node, ...]:
    """All operands of a region (autocast, no_grad) that may write into one of them."""
    owner = node.graph.owning_module
    attributes = [n for n in node.all_input_nodes if n.op == "get_attr"]
    regions = [getattr(owner, str(n.target), None) for n in attributes]
    inside = any(hazards(r) for r in regions if isinstance(r, GraphModule))
    return tuple(node.all_input_nodes) if inside else ()
