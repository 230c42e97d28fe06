"""Dimension analysis: which parameter slices must be kept or dropped together.

Walks the graph once, labels every dimension by the rules in `rules/`, and reads channel groups off
the labels. An operator without a rule freezes whatever reaches it.
"""

from __future__ import annotations

from torch import Tensor
from torch.fx import GraphModule, Node

from ..state import written_buffers
from .labels import Dims
from .rules.table import RULES
from .walk import ReshapeSplit, RuleError, Walk, attribute_at

ROUNDS = 3


def walk(module: GraphModule, prune_normalized_dims: bool = False) -> Walk:
    """Label the whole graph; splits whose choice ends frozen are walked again with their next."""
    choices: dict[str, int] = {}
    state = _walk_once(module, choices, prune_normalized_dims)
    for _ in range(ROUNDS):
        stuck = [s for s in _stuck(state) if choices.get(s.node, 0) + 1 < s.options]
        if not stuck:
            break
        for split in stuck:
            choices[split.node] = choices.get(split.node, 0) + 1
        state = _walk_once(module, choices, prune_normalized_dims)
    lost = [s.node for s in _stuck(state) if choices.pop(s.node, 0)]
    return _walk_once(module, choices, prune_normalized_dims) if lost else state


def _stuck(state: Walk) -> list[ReshapeSplit]:
    return [s for s in state.splits if state.labels.frozen(int(s.labels[0])) is not None]


def _walk_once(module: GraphModule, choices: dict[str, int], prune_normalized_dims: bool) -> Walk:
    state = Walk(module, choices=dict(choices), prune_normalized_dims=prune_normalized_dims)
    for node in module.graph.nodes:
        if node.op == "get_attr":
            value = node.meta.get("val")
            is_tensor = isinstance(value, Tensor) or isinstance(
                attribute_at(module, str(node.target)), Tensor
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


def node_op(node: Node) -> str:
    return str(node.target).removeprefix("aten.") if node.op == "call_function" else node.op


def unknown(state: Walk, node: Node, why: str) -> Dims:
    """No rule: keep whole whatever goes in and comes out."""
    reason = f"it reaches `{node_op(node)}` (node `{node.name}`), which {why}"
    for used in node.all_input_nodes:
        for dims in (state.of(used), *state.parts.get(used, ())):
            if any(d is not None for d in dims):
                state.unknown_ops.setdefault(node_op(node), node.name)
            state.freeze(dims, reason)
    return _whole(state, node)
