"""Rules for products of two computed tensors: matmul, einsum, attention; and softmax."""

from __future__ import annotations

from collections.abc import Sequence
from string import ascii_letters

from torch.fx import Node

from ..labels import Dims, Labels
from ..walk import RuleError, Walk
from .arguments import argument, axes


def matmul(walk: Walk, node: Node) -> Dims:
    """(..., n, k) @ (..., k, m): the contracted dimension is tied, batch dimensions broadcast."""
    return _product(walk, node, node.args[0], node.args[1])


def addmm(walk: Walk, node: Node) -> Dims:
    """bias + a @ b; a bias of one dimension follows the columns."""
    out = _product(walk, node, node.args[1], node.args[2])
    bias = walk.of(node.args[0])
    reason = f"node `{node.name}` adds a dimension that stays whole"
    for mine, theirs in zip(reversed(out), reversed(bias), strict=False):
        walk.labels.join(mine, theirs, reason)
    return out


def _product(walk: Walk, node: Node, a: object, b: object) -> Dims:
    left, right = walk.of(a), walk.of(b)
    if not left or not right:
        raise RuleError("a product with a number")
    reason = f"node `{node.name}` multiplies it with a dimension that stays whole"
    walk.labels.join(left[-1], right[-2] if len(right) > 1 else right[-1], reason)
    batch = _batch(walk, node, a, b)
    rows = (left[-2],) if len(left) > 1 else ()
    columns = (right[-1],) if len(right) > 1 else ()
    return (*batch, *rows, *columns)


def _batch(walk: Walk, node: Node, a: object, b: object) -> list[Labels | None]:
    left, right = walk.of(a)[:-2], walk.of(b)[:-2]
    depth = max(len(left), len(right))
    operands = [x for x in (a, b) if isinstance(x, Node)]
    return [walk.broadcast(node, operands, position - 2) for position in range(-depth, 0)]


def einsum(walk: Walk, node: Node) -> Dims:
    """Letters name dimensions; a letter that one operand alone sums over must stay whole."""
    operands = node.args[1]
    assert isinstance(operands, (list, tuple))
    inputs, output = spelled_out(str(node.args[0]), [len(walk.of(x)) for x in operands])
    merged: dict[str, Labels | None] = {}
    count: dict[str, int] = {}
    for letters, operand in zip(inputs, operands, strict=True):
        if len(set(letters)) != len(letters):
            raise RuleError("an einsum over a diagonal")
        for letter, labels in zip(letters, walk.of(operand), strict=True):
            reason = f"node `{node.name}` combines it with a dimension that stays whole"
            merged[letter] = (
                walk.labels.join(merged[letter], labels, reason) if letter in merged else labels
            )
            count[letter] = count.get(letter, 0) + 1
    for letter, labels in merged.items():
        if letter not in output and count[letter] == 1:
            walk.labels.freeze(labels, f"node `{node.name}` sums over it")
    return tuple(merged[letter] for letter in output)


def spelled_out(equation: str, ranks: Sequence[int]) -> tuple[list[str], str]:
    """Letters of each operand and of the result, the ellipsis and a missing result written out."""
    left, arrow, output = equation.replace(" ", "").partition("->")
    inputs = left.split(",")
    free = [c for c in ascii_letters if c not in equation]
    depth = [rank - len(x) + 3 for x, rank in zip(inputs, ranks, strict=True) if "..." in x]
    dots = "".join(free[: max(depth, default=0)])
    if not arrow:
        once = sorted(c for c in set(left) - set(",.") if left.count(c) == 1)
        output = "..." * bool(depth) + "".join(once)
    spelled = [
        x.replace("...", dots[len(dots) - (rank - len(x) + 3) :])
        for x, rank in zip(inputs, ranks, strict=True)
    ]
    return spelled, output.replace("...", dots)


def scaled_dot_product_attention(walk: Walk, node: Node) -> Dims:
    """sdpa(q, k, v, mask): heads of all three go together; grouped queries go with their key head.

    q (..., L, E), k (..., S, E), v (..., S, Ev). The size of a head stays whole: it sets the scale.
    """
    query, key, value = (walk.of(node.args[i]) for i in range(3))
    if len(query) < 3 or len(query) != len(key) or len(key) != len(value):
        raise RuleError("an attention without heads")
    reason = f"node `{node.name}` combines it with a dimension that stays whole"
    for labels in (query[-1], key[-1]):
        walk.labels.freeze(labels, "the size of a head sets the scale of its attention")
    for labels in (query[-2], key[-2], value[-2]):
        walk.labels.freeze(labels, "attention looks at every position")
    batch: list[Labels | None] = []
    for axis in range(len(query) - 2):
        heads = walk.labels.join(key[axis], value[axis], reason)
        batch.append(_grouped(walk, query[axis], heads, reason))
    mask = node.args[3] if len(node.args) > 3 else node.kwargs.get("attn_mask")
    if isinstance(mask, Node):
        _masked(walk, mask, batch, reason)
    return (*batch, query[-2], value[-1])


def _grouped(walk: Walk, query: Labels | None, key: Labels | None, reason: str) -> Labels | None:
    if query is None or key is None or len(query) == len(key):
        return walk.labels.join(query, key, reason)
    for heads, shared in zip(query.reshape(len(key), -1), key.tolist(), strict=True):
        for head in heads.tolist():
            walk.labels.tie(head, shared)
    return query


def _masked(walk: Walk, mask: Node, batch: list[Labels | None], reason: str) -> None:
    dims, shape = walk.of(mask), walk.shape(mask)
    for labels in dims[-2:]:
        walk.labels.freeze(labels, "attention looks at every position")
    for position in range(-len(batch), 0):
        at = position - 2
        if len(dims) >= -at and shape[at] != 1:
            walk.labels.join(batch[position], dims[at], reason)
        elif len(dims) >= -at:
            walk.labels.freeze(dims[at], reason)


def softmax(walk: Walk, node: Node) -> Dims:
    """softmax, log_softmax, cumsum, sort ...: along `dim` every index counts."""
    dims = walk.of(node.args[0])
    for axis in axes(argument(node, 1, "dim", -1), len(dims)):
        walk.labels.freeze(dims[axis], f"node `{node.name}` normalizes over it")
    return dims
