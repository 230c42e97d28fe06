"""The sizes that an exported program says it takes, by input and axis."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor
from torch.export import ExportedProgram

from ..core.model_io import Inputs, leaves
from ..core.span import MOST, Span


def open_sizes(program: ExportedProgram) -> list[dict[int, Span]]:
    """In the order of its example's tensors: axes whose size is left open, and their ends."""
    shown = program.example_inputs
    inputs = Inputs(tuple(leaves(shown[0])), dict(shown[1])) if shown else Inputs()
    values = {n.name: n.meta.get("val") for n in program.graph.nodes if n.op == "placeholder"}
    names = [str(name) for name in program.graph_signature.user_inputs]
    places = {id(x): name for x, name in zip(inputs.in_order(names), names, strict=False)}
    return [_open(values.get(places.get(id(x), "")), program.range_constraints) for x in inputs]


def _open(value: object, ranges: Mapping[Any, Any]) -> dict[int, Span]:
    shape: Any = value.shape if isinstance(value, Tensor) else ()
    open_axes = {axis: size for axis, size in enumerate(shape) if not isinstance(size, int)}
    return {axis: _span(ranges.get(size.node.expr)) for axis, size in open_axes.items()}


def _span(bounds: Any) -> Span:
    """Without known ends it starts at 1: what a size really is for, a capture finds out."""
    if bounds is None:
        return Span()
    low = max(1, int(bounds.lower)) if bounds.lower.is_Integer else 1
    high = int(bounds.upper) if bounds.upper.is_Integer else MOST
    return Span(1 if low == 2 else low, high if high < MOST else None)
