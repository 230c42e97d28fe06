"""Rules for spectra and complex numbers."""

from __future__ import annotations

from torch.fx import Node

from ..labels import Dims
from ..walk import Rule, Walk
from .arguments import argument, axes


def transform(default: list[int] | None) -> Rule:
    """A rule for the fft family(x, sizes, dims): what is transformed stays whole."""

    def rule(walk: Walk, node: Node) -> Dims:
        dims = walk.of(node.args[0])
        changed = set(axes(argument(node, 2, "dim", default), len(dims)))
        for axis in changed:
            walk.labels.freeze(dims[axis], f"node `{node.name}` transforms along it")
        return tuple(None if axis in changed else labels for axis, labels in enumerate(dims))

    return rule


def as_complex(walk: Walk, node: Node) -> Dims:
    """(..., 2) -> (...): real and imaginary part become one number."""
    dims = walk.of(node.args[0])
    walk.labels.freeze(dims[-1], f"node `{node.name}` reads a complex number from it")
    return dims[:-1]


def as_real(walk: Walk, node: Node) -> Dims:
    return (*walk.of(node.args[0]), None)
