"""Two kernels for one layer, called in turns: is the packed one worth it on this machine?

Asked whenever a graph is lowered, so it takes a few milliseconds and is answered once for each
kind of layer, size and thread count. The least of the calls in turns is compared, since whatever
disturbs a call only adds to it.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable

import torch

from ..profiling.clocks import WallClock
from ..profiling.gate import alone

Run = Callable[[], object]
LEAST, MOST, MS = 4, 40, 4.0  # calls of each, and the time after which LEAST are enough
LONG_MS = 30.0  # and after which one is: of layers that take so long the 20 us do not matter
CLEAR = 0.97  # a layer stays as it is where it takes at most this share of the packed kernel's time
_answers: dict[tuple[Hashable, int], bool] = {}


def worth_packing(layer: Hashable, packed: Run, plain: Run) -> bool:
    """True unless the layer is faster as it is; `layer` is what its time depends on."""
    key = (layer, torch.get_num_threads())
    if key not in _answers:
        _answers[key] = _is_faster(packed, plain)
    return _answers[key]


def _is_faster(packed: Run, plain: Run) -> bool:
    clock = WallClock()
    runs = (packed, plain)
    with alone(), torch.inference_mode():
        for run in runs:
            run()
        times: list[list[float]] = [[], []]
        started = clock.now()
        while _goes_on(len(times[0]), 1e3 * (clock.now() - started)):
            for run, row in zip(runs, times, strict=True):
                row.append(clock.time(run))
    return min(times[1]) > CLEAR * min(times[0])


def _goes_on(count: int, ms: float) -> bool:
    if count < LEAST:
        return not count or ms < LONG_MS
    return count < MOST and ms < MS
