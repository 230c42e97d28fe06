"""State of a GPU as its driver tells it: clock, temperature, power and what holds the clock down.

Asked of NVML where `nvidia-ml-py` is installed (microseconds), else of `nvidia-smi` (a tenth of a
second, so not more than once in a while). Both name the GPU by its UUID, since CUDA_VISIBLE_DEVICES
renumbers torch's devices and not theirs.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import torch

from ..core.checks import Finding
from ..core.records import Notice

EVERY = 5.0  # seconds between two calls of nvidia-smi
PATIENCE = 5.0  # seconds for one; a driver that hangs must not hold up a run
QUERY = ("clocks.sm", "clocks.max.sm", "temperature.gpu", "power.draw")
REASONS = ("clocks_event_reasons.active", "clocks_throttle_reasons.active")  # now, before 535
# Bits of NVML's clock event reasons that slow a busy GPU (nvml.h, nvmlClocksEventReason*). The
# others say that it is idle, or at a clock that somebody set.
SLOWING = {
    0x4: "its power limit", 0x8: "the board (temperature or power)", 0x20: "temperature",
    0x40: "temperature (hardware)", 0x80: "the power supply",
}  # fmt: skip
_last: dict[str, tuple[float, GpuState | None]] = {}


@dataclass(frozen=True)
class GpuState:
    """Clocks of the multiprocessors in MHz, degrees Celsius, watts, NVML's bits of reasons."""

    sm_mhz: float
    most_mhz: float
    celsius: float
    watts: float
    reasons: int

    @property
    def slowed_by(self) -> tuple[str, ...]:
        return tuple(text for bit, text in SLOWING.items() if self.reasons & bit)

    @property
    def text(self) -> str:
        return (
            f"{self.sm_mhz:.0f} of {self.most_mhz:.0f} MHz, {self.celsius:.0f} °C, "
            f"{self.watts:.0f} W"
        )


def read_gpu(device: str, quick: bool = False) -> GpuState | None:
    """The state now; of `nvidia-smi` alone, that of the last seconds. None where neither is.

    `quick`: NVML is asked, or nobody.
    """
    name = _uuid(device)
    if name is None:
        return None
    with suppress(Exception):  # NVML's errors are of a class of its own for each code
        return _by_nvml(name)
    if quick:
        return None
    at, state = _last.get(name, (-EVERY, None))
    if time.monotonic() - at >= EVERY:
        state = None
        with suppress(OSError, subprocess.SubprocessError, ValueError):
            state = parsed(_smi(name))
        _last[name] = (time.monotonic(), state)
    return state


def _uuid(device: str) -> str | None:
    where = torch.device(device)
    if where.type != "cuda" or not torch.cuda.is_available():
        return None
    uuid = getattr(torch.cuda.get_device_properties(where), "uuid", None)
    return None if uuid is None else f"GPU-{uuid}"


def _by_nvml(name: str) -> GpuState:
    import pynvml  # type: ignore[import-not-found, unused-ignore]

    nvml: Any = pynvml
    nvml.nvmlInit()  # counted: the driver is asked once
    gpu = nvml.nvmlDeviceGetHandleByUUID(name)
    reasons = getattr(nvml, "nvmlDeviceGetCurrentClocksEventReasons", None)
    reasons = reasons or nvml.nvmlDeviceGetCurrentClocksThrottleReasons  # the name before 12.2
    return GpuState(
        float(nvml.nvmlDeviceGetClockInfo(gpu, nvml.NVML_CLOCK_SM)),
        float(nvml.nvmlDeviceGetMaxClockInfo(gpu, nvml.NVML_CLOCK_SM)),
        float(nvml.nvmlDeviceGetTemperature(gpu, nvml.NVML_TEMPERATURE_GPU)),
        nvml.nvmlDeviceGetPowerUsage(gpu) / 1e3,
        int(reasons(gpu)),
    )


def _smi(name: str) -> str:
    for reasons in REASONS:
        fields = ",".join((*QUERY, reasons))
        words = ["nvidia-smi", "-i", name, f"--query-gpu={fields}", "--format=csv,noheader,nounits"]
        done = subprocess.run(words, capture_output=True, text=True, timeout=PATIENCE)
        if done.returncode == 0:
            break
    return done.stdout


def parsed(line: str) -> GpuState:
    """A line of `nvidia-smi`; what a GPU does not tell (`[N/A]`) counts as 0."""
    cells = [cell.strip() for cell in line.strip().partition("\n")[0].split(",")]
    if len(cells) != len(QUERY) + 1:
        raise ValueError(f"`nvidia-smi` answers {line.strip()!r}")
    *figures, reasons = cells
    numbers = [float(cell) if cell[:1].isdigit() else 0.0 for cell in figures]
    bits = int(reasons, 16) if reasons.startswith("0x") else 0
    mhz, most, celsius, watts = numbers
    return GpuState(mhz, most, celsius, watts, bits)


def gpu_slowed(state: GpuState | None) -> Notice | None:
    """Seen when the driver held the GPU's clock down right after sampling."""
    if state is None or not state.slowed_by:
        return None
    return Notice(
        "gpu_slowed",
        f"The GPU's clock is held down by {' and '.join(state.slowed_by)} ({state.text}).",
        "A GPU at its power or temperature limit, from this work or from that of others.",
        "Run again when it is cool and idle; ratios to the original hold.",
    )


def gpu_finding(device: str, read: Callable[[str], GpuState | None] = read_gpu) -> Finding:
    """A row of `doctor`."""
    state = read(device)
    if state is None:
        help_ = "`pip install nvidia-ml-py`, or add `nvidia-smi` to the container."
        return Finding("GPU clock", "not visible: neither NVML nor nvidia-smi", "watch", help_)
    if not state.slowed_by:
        return Finding("GPU clock", state.text)
    text = f"{state.text}; held down by {' and '.join(state.slowed_by)}"
    return Finding("GPU clock", text, "bad", "Wait until it is cool and idle, or raise its limit.")
