"""The sizes that a run's graph is captured for: those asked for, as far as the model takes them.

What varies is asked for (`varies` of an input). A capture that would compute something else at some
of those sizes is not used: the size is fixed then, and the report says why.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from torch import nn
from torch.fx import GraphModule

from ..checkpoints.samples import draw_inputs, other_sizes, specs_of
from ..core.errors import text_line
from ..core.json_values import JsonObject
from ..core.model_io import Inputs
from ..core.records import LeftAlone
from ..core.span import Span, spans_to_json
from ..graph.capture import capture
from ..graph.spans import spans_found
from ..profiling.closeness import PlainOutputs, tolerance_of
from .size_limits import where_it_runs

ROUNDS = 4
Spans = tuple[Mapping[int, Span], ...]


@dataclass(frozen=True)
class CapturedSizes:
    """A graph, the inputs with the sizes that it takes, and those that it does not, with why."""

    graph: GraphModule
    inputs: Inputs
    left_out: tuple[LeftAlone, ...] = ()


def captured_at_sizes(model: nn.Module, inputs: Inputs, seed: int) -> CapturedSizes:
    """The capture of `model` that takes what of `inputs.varies` it can."""
    if not inputs.varies:
        return CapturedSizes(capture(model, inputs), inputs)
    try:
        graph, taken = _captured(model, inputs, seed)
    except Exception as error:  # of the exporter, and of what it can't do with a symbol
        fixed = replace(inputs, varies=())
        rows = _rows(inputs, fixed, f"it stays fixed: {text_line(error)}")
        return CapturedSizes(capture(model, fixed), fixed, rows)
    taken = _from_one(model, graph, inputs, taken, seed)
    return CapturedSizes(graph, taken, _rows(inputs, taken, "the model fixes it"))


def _captured(model: nn.Module, inputs: Inputs, seed: int) -> tuple[GraphModule, Inputs]:
    """Captured again with what was found, until that is all: sizes that are fixed as numbers, and
    multiples (which split evenly, so that the graph's shapes say more) as such."""
    wanted = inputs
    for _ in range(ROUNDS):
        graph = capture(model, wanted)
        taken = replace(inputs, varies=spans_found(graph, wanted))
        if _open(taken) == _open(wanted):
            break
        wanted = taken
    else:
        raise ValueError("the sizes that it takes are not known")
    taken = where_it_runs(model, taken, seed)
    if reason := _differs(model, graph, taken, seed):
        raise ValueError(reason)
    return graph, taken


def _open(inputs: Inputs) -> list[dict[int, int]]:
    return [{axis: span.multiple for axis, span in row.items()} for row in inputs.spans]


def size_lines(inputs: Inputs) -> tuple[str, ...]:
    """A line for each size that varies: `input_ids` axis 1: 1 to 512."""
    return tuple(
        f"`{name}` axis {axis}: {span.words()}"
        for name, spans in zip(inputs.labels, inputs.spans, strict=True)
        for axis, span in sorted(spans.items())
    )


def with_sizes(specs: Sequence[JsonObject], inputs: Inputs) -> tuple[JsonObject, ...]:
    """Specifications of `inputs` with what of them varies."""
    by_name = dict(zip(inputs.names, inputs.spans, strict=True))
    by_place = iter(inputs.spans)
    rows = []
    for spec in specs:
        spans = by_name[str(spec["name"])] if spec.get("name") else next(by_place)
        rest = {key: value for key, value in spec.items() if key != "varies"}
        rows.append(rest | ({"varies": spans_to_json(spans)} if spans else {}))
    return tuple(rows)


def written_sizes(graph: GraphModule, inputs: Inputs) -> Inputs:
    """`inputs` with the sizes that a program that was exported again still takes."""
    try:
        spans = spans_found(graph, inputs)
    except ValueError:
        spans = ()
    kept = [
        {axis: _both(span, now[axis]) for axis, span in before.items() if axis in now}
        for before, now in zip(inputs.spans, spans, strict=False)
    ]
    return replace(inputs, varies=tuple(kept) if any(kept) else ())


def _both(before: Span, now: Span) -> Span:
    # A capture never shows 1, which was tried by itself.
    low = before.low if now.low <= 2 else max(before.low, now.low)
    highs = [h for h in (before.high, now.high) if h is not None]
    return replace(now, low=low, high=min(highs, default=None))


def _differs(model: nn.Module, graph: GraphModule, inputs: Inputs, seed: int) -> str:
    """The reason why the graph is not what the model computes at other sizes."""
    for specs in other_sizes(specs_of(inputs)):
        shapes = ", ".join("x".join(map(str, spec["shape"])) for spec in specs)
        try:
            drawn = draw_inputs(specs, seed).map(lambda x: x.to(inputs[0].device))
            if not _same(model, graph, drawn):
                return f"at {shapes} a capture gives other outputs than the model"
        except Exception as error:  # of the model's own code
            return f"at {shapes} it does not run: {text_line(error)}"
    return ""


def _same(model: nn.Module, graph: GraphModule, inputs: Inputs) -> bool:
    allowed = tolerance_of((*graph.parameters(), *graph.buffers()))
    wanted = PlainOutputs.of(model, (inputs,), allowed, coarse=allowed > 1e-2, fresh=True)
    return wanted.closeness(graph).holds


def _from_one(
    model: nn.Module, graph: GraphModule, asked: Inputs, taken: Inputs, seed: int
) -> Inputs:
    """With a size of 1, which captures never show, where it was asked for and works as well."""
    spans = tuple(
        {
            axis: replace(span, low=1) if span.low == 2 and wanted[axis].low == 1 else span
            for axis, span in found.items()
        }
        for found, wanted in zip(taken.spans, asked.spans, strict=True)
    )
    from_one = replace(taken, varies=spans)
    if spans == taken.spans or _differs(model, graph, from_one, seed):
        return taken
    return from_one


def _rows(asked: Inputs, taken: Inputs, reason: str) -> tuple[LeftAlone, ...]:
    return tuple(
        LeftAlone(f"the size of `{name}` in axis {axis}", reason)
        for name, wanted, found in zip(asked.labels, asked.spans, taken.spans, strict=True)
        for axis in sorted(set(wanted) - set(found))
    )
