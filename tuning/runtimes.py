"""How a graph runs here: as exported, or lowered to fast kernels where that is faster."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.fx import GraphModule

from ..core.errors import UsageError
from ..graph.capture import clone
from ..graph.lowering import variants
from ..profiling.timer import measure_interleaved

PLAIN = "plain"
Inputs = tuple[Tensor, ...]


def realise(module: GraphModule, inputs: Inputs, name: str) -> nn.Module:
    """`module` ready to run under runtime `name` (`plain` or a lowering's name)."""
    if name == PLAIN:
        return module
    known = variants(module, inputs)
    if name not in known:
        # Another machine may not have the kernels this variant was tuned for: run it as exported.
        return module
    return known[name]()


def fastest(module: GraphModule, inputs: Inputs, runtime: str, percentile: float) -> str:
    """The runtime that measures fastest here; `plain` unless a lowering is measurably faster.

    Raises UsageError for a runtime that is not built yet.
    """
    if runtime == PLAIN:
        return PLAIN
    if runtime != "lowered":
        raise UsageError(f"`--runtime {runtime}` is not available yet; use `plain` or `lowered`.")
    made: dict[str, nn.Module] = {PLAIN: clone(module)}
    made |= {name: build() for name, build in variants(module, inputs).items()}
    device = str(inputs[0].device)
    latencies = measure_interleaved(
        [runner(m, inputs) for m in made.values()], percentile=50.0, max_seconds=3.0, device=device
    )
    ranked = dict(zip(made, latencies, strict=True))
    best = min(ranked, key=lambda name: ranked[name].value_ms)
    return best if ranked[best].high_ms < ranked[PLAIN].low_ms else PLAIN


def runner(module: nn.Module, inputs: Inputs) -> Callable[[], object]:
    """A call without gradients, as a user's inference loop makes it."""

    def run() -> object:
        with torch.inference_mode():
            return module(*inputs)

    return run
