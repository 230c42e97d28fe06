"""Peak arithmetic rate of this machine, measured with a matrix product."""

from __future__ import annotations

import torch

from .clocks import Clock, clock_for
from .gate import alone

SIZE = {"cpu": 768, "cuda": 4096}  # a GPU is not full with less
_measured: dict[tuple[str, torch.dtype, int], float] = {}


def peak_flops(device: str = "cpu", dtype: torch.dtype = torch.float32) -> float:
    """Best FLOP/s seen, once per process, device, dtype and thread count (2 FLOP per MAC)."""
    key = (device, dtype, torch.get_num_threads())
    if key not in _measured:
        size = SIZE.get(torch.device(device).type, SIZE["cpu"])
        _measured[key] = measure_peak(device, dtype, clock_for(device), size=size)
    return _measured[key]


@alone()
def measure_peak(
    device: str, dtype: torch.dtype, clock: Clock, seconds: float = 0.3, size: int = SIZE["cpu"]
) -> float:
    a = torch.randn(size, size, device=device).to(dtype)
    b = torch.randn(size, size, device=device).to(dtype)
    out = torch.empty(size, size, device=device, dtype=dtype)
    with torch.inference_mode():
        clock.time(lambda: torch.mm(a, b, out=out))  # the first call sets up threads and buffers
        best = clock.time(lambda: torch.mm(a, b, out=out))
        end = clock.now() + seconds
        while clock.now() < end:
            best = min(best, clock.time(lambda: torch.mm(a, b, out=out)))
    return 2.0 * size**3 / (max(best, 1e-6) / 1e3)
