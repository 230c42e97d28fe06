"""Leaving out a residual block: what it adds goes, what it starts from goes on alone."""

from __future__ import annotations

from torch._ops import OpOverload
from torch.fx import GraphModule, Node

from ...core.errors import EditError
from ..blocks import branch_of
from ..mutation import hazards, without_writing

_ONCE_IS_ENOUGH = ("relu", "relu6", "hardtanh")


def drop_block(module: GraphModule, node: Node, skip: Node) -> None:
    """`skip` takes the place of the sum `node`, in place; weights that nothing reads then go.

    Raises EditError if `skip` is not an input of the sum.
    """
    if skip not in node.all_input_nodes:
        raise EditError(
            f"`{skip.name}` is not an input of `{node.name}`, so it can't take its place."
        )
    before, branch = _read(module), branch_of(node, skip)
    node.replace_all_uses_with(skip)
    # Batch norms and in-place operators count as impure, so dead-code elimination would keep them.
    for dead in (n for n in reversed(list(module.graph.nodes)) if n in {node, *branch}):
        if not dead.users:
            module.graph.erase_node(dead)
    module.graph.eliminate_dead_code()
    _once(skip)
    _spare(skip)
    for seen in hazards(module):
        without_writing(seen)
    for name in before - _read(module):
        owner, _, leaf = name.rpartition(".")
        delattr(module.get_submodule(owner), leaf)


def _once(value: Node) -> None:
    """An activation of the sum that `value` has been through already changes nothing now."""
    for user in list(value.users):
        same = _name(user) in _ONCE_IS_ENOUGH and _name(user) == _name(value)
        if same and user.args[1:] == value.args[1:]:
            user.replace_all_uses_with(value)
            user.graph.erase_node(user)


def _name(node: Node) -> str:
    """Of an operator, whether it works in place or not."""
    target = node.target
    name = target._schema.name if isinstance(target, OpOverload) else ""
    return name.removeprefix("aten::").removesuffix("_")


def _spare(value: Node) -> None:
    """An operator in place on the sum would now overwrite the value that an activation before it
    keeps for its gradient, so it works on a copy."""
    user = next(iter(value.users)) if len(value.users) == 1 else None
    if user is not None and user.args and user.args[0] is value:
        without_writing(user)


def _read(module: GraphModule) -> set[str]:
    return {str(n.target) for n in module.graph.nodes if n.op == "get_attr"}
