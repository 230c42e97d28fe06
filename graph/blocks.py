"""Residual blocks: sums whose one side is computed from the other, so that it can be left out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from os.path import commonpath

from torch import Tensor
from torch.fx import GraphModule, Node

from ..core.naming import outside
from .operators import aten

_SUMS = (aten.add.Tensor, aten.add_.Tensor)


@dataclass(frozen=True)
class Block:
    """`total` = `skip` + branch; `params` are read in the branch and nowhere else."""

    name: str
    total: str
    skip: str
    params: tuple[str, ...]


def residual_blocks(module: GraphModule) -> tuple[Block, ...]:
    """Blocks in graph order whose removal keeps every shape."""
    ancestors = _ancestors(module)
    blocks = []
    for node in module.graph.nodes:
        skip = _skip_of(node, ancestors)
        if skip is not None and not _overwrites(node, skip, branch_of(node, skip)):
            params = tuple(_params_of_branch(node, skip))
            if params:
                blocks.append(Block(_name(params), node.name, skip.name, params))
    return tuple(blocks)


def innermost(module: GraphModule, blocks: Iterable[Block]) -> tuple[Block, ...]:
    """Those that no other one is a part of its branch of: they can go one by one."""
    nodes = {n.name: n for n in module.graph.nodes}
    blocks = tuple(blocks)
    totals = {b.total for b in blocks}
    return tuple(
        b
        for b in blocks
        if not any(n.name in totals for n in branch_of(nodes[b.total], nodes[b.skip]))
    )


def sums_of_branches(module: GraphModule) -> tuple[Node, ...]:
    """Sums of which neither side is computed from the other (projected shortcuts)."""
    ancestors = _ancestors(module)
    return tuple(
        n
        for n in module.graph.nodes
        if n.target in _SUMS
        and len(_computed(n)) == 2
        and _skip_of(n, ancestors) is None
        and all(any(a.op == "get_attr" for a in ancestors[side]) for side in _computed(n))
    )


def branch_of(total: Node, skip: Node) -> set[Node]:
    """Nodes between a block's input and its sum: computed from the one, used for the other."""
    above: set[Node] = set()
    waiting = [total]
    while waiting:
        new = [n for n in waiting.pop().all_input_nodes if n not in above and n is not skip]
        above.update(new)
        waiting.extend(new)
    below = {skip}
    for node in skip.graph.nodes:
        if node in above and any(i in below for i in node.all_input_nodes):
            below.add(node)
    return below - {skip}


def _overwrites(total: Node, skip: Node, branch: set[Node]) -> bool:
    """True if an in-place operator would change the skipped value for somebody else."""
    inside = any(_in_place(n) and n.args[0] not in branch for n in branch)
    after = any(_in_place(n) and n.args[0] is total for n in total.users)
    return inside or (after and any(n is not total and n not in branch for n in skip.users))


def _in_place(node: Node) -> bool:
    """By the naming rule of ATen: `relu_`, `add_`."""
    return str(node.target).removeprefix("aten.").partition(".")[0].endswith("_")


def _ancestors(module: GraphModule) -> dict[Node, set[Node]]:
    ancestors: dict[Node, set[Node]] = {}
    for node in module.graph.nodes:
        ancestors[node] = set().union(*({i, *ancestors[i]} for i in node.all_input_nodes))
    return ancestors


def _computed(node: Node) -> list[Node]:
    return [a for a in node.args[:2] if isinstance(a, Node) and a.op != "get_attr"]


def _skip_of(node: Node, ancestors: dict[Node, set[Node]]) -> Node | None:
    """The side of a sum that the other side is computed from, where both have the sum's shape."""
    if node.target not in _SUMS or node.kwargs.get("alpha", 1) != 1:
        return None
    sides = _computed(node)
    if len(sides) != 2:
        return None
    for skip, branch in (sides, sides[::-1]):
        if skip in ancestors[branch] and _same(node, skip) and _same(node, branch):
            return skip
    return None


def _same(a: Node, b: Node) -> bool:
    """Shapes and dtypes are equal; those of symbols by their spelling."""
    left, right = a.meta.get("val"), b.meta.get("val")
    if not isinstance(left, Tensor) or not isinstance(right, Tensor):
        return False
    return str(left.shape) == str(right.shape) and left.dtype == right.dtype


def _params_of_branch(total: Node, skip: Node) -> Iterator[str]:
    branch = branch_of(total, skip)
    for node in skip.graph.nodes:
        if node.op == "get_attr" and node.users and all(user in branch for user in node.users):
            yield str(node.target)


def _name(params: tuple[str, ...]) -> str:
    """The prefix that the parameters' names share: `layers.3` of `layers.3.conv1.weight` and the
    rest."""
    layers = [p.rpartition(".")[0].replace(".", "/") for p in params]
    return outside((commonpath(layers) or layers[0] or params[0]).replace("/", "."))
