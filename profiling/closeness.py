"""Distance of a module's outputs from those of the plain graph, on the same inputs.

A fast runtime that computes something else is worse than a slow one. Every lowering, compiled
graph and loaded artifact is compared with the graph as exported before its time counts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import GraphModule

from ..core.model_io import Inputs, leaves, plain
from ..core.records import Closeness
from .state import kept_state

COARSE = 5e-2
TOLERANCE = 1e-3  # relative to the largest value
FLOOR = 1e-4  # of values: below it a relative error says nothing
SLICE = 16  # values that have a size of their own: boxes in pixels beside scores below 1
SMALL = 1e-3  # no slice is judged finer than this part of the whole
MAX_SLICES = 4096
CALLS = 2
SEED = 0
Forward = Callable[..., Any]


def relative_error(wanted: Tensor, actual: Tensor, *, coarse: bool = False) -> float:
    """The largest error of `actual`, relative to the largest value of `wanted`.

    Slices along a dimension (channels, coordinates) are also judged by their own largest value.
    `coarse`: the Euclidean norm of the error relative to that of `wanted`, for outputs of values
    rounded to few bits, where single ones fall on the next step. For integers the fraction that
    differs. Infinite where shape, dtype, NaN or infinity differ.
    """
    if wanted.shape != actual.shape or wanted.dtype != actual.dtype:
        return float("inf")
    if not wanted.numel():
        return 0.0
    if not (wanted.is_floating_point() or wanted.is_complex()):
        return float((wanted != actual).double().mean())
    if wanted.is_complex():
        wanted, actual = torch.view_as_real(wanted), torch.view_as_real(actual)
    wanted, actual = wanted.detach().double(), actual.detach().double()
    finite = wanted.isfinite()
    if not torch.equal(finite, actual.isfinite()) or not _same(wanted[~finite], actual[~finite]):
        return float("inf")
    wanted, actual = wanted.where(finite, 0.0), actual.where(finite, 0.0)
    error = (actual - wanted).abs()
    if coarse:
        return float(error.norm() / wanted.norm().clamp_min(FLOOR))
    return _largest(error, wanted.abs())


def _same(a: Tensor, b: Tensor) -> bool:
    return bool(torch.equal(a.nan_to_num(2.0, 1.0, -1.0), b.nan_to_num(2.0, 1.0, -1.0)))


def _largest(error: Tensor, size: Tensor) -> float:
    scale = max(float(size.max()), FLOOR)
    worst = float(error.max()) / scale
    for dim in range(1, error.dim()):
        count = error.shape[dim]
        if not 1 < count <= MAX_SLICES or error.numel() // count < SLICE:
            continue
        rest = [d for d in range(error.dim()) if d != dim]
        own = size.amax(rest).clamp_min(max(SMALL * scale, FLOOR))
        worst = max(worst, float((error.amax(rest) / own).max()))
    return worst


@dataclass(frozen=True)
class PlainOutputs:
    """Outputs of the plain graph on some inputs, called twice in a row on each of them.

    A second call tells whether state, weights or inputs were overwritten by the first. `fresh`:
    each call has inputs of its own, since the model may write into them, as its graph does not.
    """

    probes: tuple[Inputs, ...]
    outputs: tuple[tuple[list[Tensor], ...], ...]
    allowed: float
    coarse: bool
    fresh: bool = False

    @classmethod
    def of(
        cls,
        module: nn.Module,
        probes: Sequence[Inputs],
        allowed: float,
        *,
        coarse: bool,
        fresh: bool = False,
    ) -> PlainOutputs:
        outputs = tuple(_calls(module, p, fresh) for p in probes)
        return cls(tuple(probes), outputs, allowed, coarse, fresh)

    def closeness(self, module: Forward) -> Closeness:
        """The largest error of `module` over all probes and calls."""
        worst = 0.0
        for probe, wanted in zip(self.probes, self.outputs, strict=True):
            for first, second in zip(wanted, _calls(module, probe, self.fresh), strict=True):
                if len(first) != len(second):
                    return self._of(float("inf"))
                for a, b in zip(first, second, strict=True):
                    worst = max(worst, relative_error(a, b.to(a.device), coarse=self.coarse))
        return self._of(worst)

    def _of(self, error: float) -> Closeness:
        return Closeness(error, self.allowed, tuple(p.batch for p in self.probes))


def _calls(module: Forward, probe: Inputs, fresh: bool) -> tuple[list[Tensor], ...]:
    gpus = list({x.device for x in probe if x.device.type == "cuda"})
    with torch.no_grad(), kept_state(module), torch.random.fork_rng(gpus):
        torch.manual_seed(SEED)  # what draws random numbers draws the same
        own = probe.map(torch.clone)  # a model may write into what it is given
        given = (own.map(torch.clone) if fresh else own for _ in range(CALLS))
        return tuple([x.clone() for x in leaves(plain(row.call(module)))] for row in given)


def plain_outputs(module: GraphModule, batches: Sequence[Inputs]) -> PlainOutputs:
    """Outputs of the plain graph on `batches`, and how near a runtime of it must come."""
    weights = (*module.parameters(), *module.buffers())
    on_gpu = batches[0][0].device.type == "cuda"  # its convolutions round to 10 bits (TF32)
    allowed = COARSE if on_gpu else tolerance_of(weights)
    return PlainOutputs.of(module, batches, allowed, coarse=allowed == COARSE)


def tolerance_of(weights: Iterable[Tensor]) -> float:
    """Where values are rounded to few bits another CPU's sums may fall on the next step."""
    coarse = (torch.float16, torch.bfloat16, torch.int8, torch.uint8)
    return COARSE if any(w.dtype in coarse for w in weights) else TOLERANCE
