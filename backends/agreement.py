"""A runtime's outputs beside those of the plain graph: one that computes something else is out."""

from __future__ import annotations

from torch import nn
from torch.fx import GraphModule

from ..core.errors import MeasureError, OutputsDiffer, text_line
from ..core.model_io import Inputs
from ..core.records import Closeness
from ..profiling.closeness import PlainOutputs
from .registry import ready


def agreeing(
    module: GraphModule, inputs: Inputs, name: str, outputs: PlainOutputs
) -> tuple[nn.Module, Closeness]:
    """`ready`, and how near its outputs come to the plain graph's. Errors as of `same_answers`."""
    runnable = ready(module, inputs, name)
    if isinstance(runnable, str):
        raise MeasureError(runnable)
    return runnable, same_answers(runnable, outputs, name)


def same_answers(runnable: nn.Module, outputs: PlainOutputs, name: str) -> Closeness:
    """Compare the outputs of `runnable`, which runs under `name`, with the plain graph's.

    Raises OutputsDiffer if they are too far apart, MeasureError if it fails on the inputs.
    """
    try:
        match = outputs.closeness(runnable)
    except Exception as error:
        reason = f"`{name}` fails on this model: {text_line(error)}"
        raise MeasureError(reason) from error
    if not match.holds:
        raise OutputsDiffer(
            f"the outputs of `{name}` differ from the plain graph's by {match.error:.2g} of their "
            f"size; at most {match.allowed:g} is allowed.",
            name,
        )
    return match
