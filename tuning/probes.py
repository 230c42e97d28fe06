"""Inputs on which all runtimes of a graph must give the same: real ones, at several batch
sizes and at other sizes of what varies."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.fx import GraphModule

from ..checkpoints.samples import at_batch, draw_inputs, other_sizes, specs_of
from ..core.model_io import Inputs
from ..data.load import Data
from ..graph.capture import has_dynamic_batch

OTHER_BATCHES = (1, 3)  # beside the target's, where the graph takes any


def probes(
    module: GraphModule, inputs: Inputs, data: Data | None = None, seed: int = 1
) -> tuple[Inputs, ...]:
    """`inputs`, and real examples (without data: drawn ones) at each batch size to be tried."""
    sizes = [inputs.batch, *(OTHER_BATCHES if has_dynamic_batch(module, inputs) else ())]
    real = _first(data, inputs) if data is not None else None
    others = [draw_inputs(specs, seed) for specs in other_sizes(specs_of(inputs))]
    # A copy: what a model writes into the inputs that it is timed with must not reach it.
    return (
        inputs.map(torch.clone),
        *(_sized(real, inputs, size, seed) for size in dict.fromkeys(sizes)),
        *(other.map(lambda x: x.to(inputs[0].device)) for other in others),
    )


def _first(data: Data, inputs: Inputs) -> Inputs | None:
    """The first training examples, if they are like the inputs that the model is measured with."""
    first = next(iter(data.calibration), None)
    given = Inputs.of(first[0]).like(inputs) if first is not None else Inputs()
    if len(given) != len(inputs) or given.names != inputs.names:
        return None
    triples = zip(given, inputs, inputs.axes, strict=True)
    return given if all(_alike(a, b, axis) for a, b, axis in triples) else None


def _alike(a: Tensor, b: Tensor, axis: int | None) -> bool:
    """True if all but the number of examples is the same."""
    apart = [n for n, sizes in enumerate(zip(a.shape, b.shape, strict=False)) if len({*sizes}) > 1]
    return a.dim() == b.dim() and a.dtype == b.dtype and apart in ([], [axis])


def _sized(real: Inputs | None, inputs: Inputs, size: int, seed: int) -> Inputs:
    device = inputs[0].device
    if real is None:
        return draw_inputs(at_batch(specs_of(inputs), size), seed).map(lambda x: x.to(device))

    def some(x: Tensor, axis: int) -> Tensor:
        return x.index_select(axis, torch.arange(size, device=x.device) % x.shape[axis])

    return real.rows(some).map(lambda x: x.to(device))
