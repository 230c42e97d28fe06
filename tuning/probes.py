"""Inputs on which all runtimes of a graph must give the same: real ones, at several batch sizes."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.fx import GraphModule

from ..checkpoints.samples import at_batch, draw_inputs, specs_of
from ..core.model_io import Inputs
from ..data.load import Data
from ..graph.capture import has_dynamic_batch
from ..profiling.closeness import batch_of

OTHER_BATCHES = (1, 3)  # beside the target's, where the graph takes any


def probes(
    module: GraphModule, inputs: Inputs, data: Data | None = None, seed: int = 1
) -> tuple[Inputs, ...]:
    """`inputs`, and real examples (without data: drawn ones) at each batch size to be tried."""
    batch = batch_of(inputs)
    sizes = [batch, *(OTHER_BATCHES if has_dynamic_batch(module) else ())]
    real = _first(data, inputs) if data is not None else None
    # A copy: what a model writes into the inputs that it is timed with must not reach it.
    return (
        inputs.map(torch.clone),
        *(_sized(real, inputs, size, seed) for size in dict.fromkeys(sizes)),
    )


def _first(data: Data, inputs: Inputs) -> Inputs | None:
    """The first training examples, if they are like the inputs that the model is measured with."""
    first = next(iter(data.calibration), None)
    given = Inputs.of(first[0]) if first is not None else Inputs()
    if len(given) != len(inputs) or given.names != inputs.names:
        return None
    pairs = zip(given, inputs, strict=True)
    alike = all(a.shape[1:] == b.shape[1:] and a.dtype == b.dtype for a, b in pairs)
    return given if alike else None


def _sized(real: Inputs | None, inputs: Inputs, size: int, seed: int) -> Inputs:
    device = inputs[0].device
    if real is None:
        return draw_inputs(at_batch(specs_of(inputs), size), seed).map(lambda x: x.to(device))

    def rows(x: Tensor) -> Tensor:
        return x[torch.arange(size) % len(x)].to(device) if x.dim() else x.to(device)

    return real.map(rows)
