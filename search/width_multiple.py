"""The multiple of channels that this machine rewards: found by timing, not in a vendor's table."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import nn

from ..backends.readiness import runner
from ..core.model_io import Inputs
from ..profiling.timer import measure_interleaved

WIDTH = 64
# A width that is not a multiple must cost this much of the next multiple's latency to be useless.
USELESS = 0.97


@lru_cache(maxsize=4)
def rewarded_multiple(device: str) -> int:
    """Largest m in 16, 8, 4 such that half a step of m below a multiple of m saves nothing."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(1, WIDTH, 14, 14, generator=generator).to(device)
    x = x.to(memory_format=torch.channels_last)

    def conv(width: int) -> nn.Module:
        layer = nn.Conv2d(WIDTH, width, 3, padding=1).to(device).eval()
        return layer.to(memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]

    widths = [WIDTH, WIDTH - 2, WIDTH - 4, WIDTH - 8]
    timed = measure_interleaved(
        [runner(conv(w), Inputs((x,))) for w in widths],
        max_seconds=2.0,
        min_seconds=0.2,
        device=device,
    )
    full = timed[0].value_ms
    for half, latency in zip((8, 4, 2), reversed(timed[1:]), strict=True):
        if latency.value_ms >= USELESS * full:
            return 2 * half
    return 4
