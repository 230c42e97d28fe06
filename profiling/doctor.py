"""Causes of unreliable timings on this machine, seen before anybody waits for them."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path
from statistics import stdev

import torch
from torch import Tensor, nn

from ..core.checks import Examination, Finding
from ..core.records import Latency
from . import notices
from .clocks import Clock, clock_for
from .gate import alone
from .gpu_state import gpu_finding
from .machine import fingerprint, usable_cores
from .statistics import compare_samples
from .timer import measure_interleaved

RUNS = 3
SLOW_SUBNORMALS = 2.0
_CPU = Path("/sys/devices/system/cpu")
_CGROUP = Path("/sys/fs/cgroup")


@alone()
def examine(
    seconds: float = 2.0, clock: Clock | None = None, cpu: Path = _CPU, cgroup: Path = _CGROUP,
    device: str = "cpu",
) -> Examination:  # fmt: skip
    """Facts of the system, then a small net measured against itself `RUNS` times (A/A)."""
    x = torch.zeros(1, 1, 32, 32).normal_(generator=torch.Generator().manual_seed(0)).to(device)
    net, used = _net().to(device), clock or clock_for("cpu")
    before = used.load()
    rows: list[Latency] = []
    with torch.inference_mode():
        for seed in range(RUNS):
            rows += measure_interleaved(
                [lambda: net(x), lambda: net(x)], clock=clock, max_seconds=seconds / RUNS,
                min_seconds=0.2, seed=seed, device=device,
            )  # fmt: skip
        slow = _subnormal_cost(used)
    crowd = notices.cpu_contention(before, used.load())
    noise = compare_samples(rows[0].samples_ms, rows[1].samples_ms, 50.0)
    floor = max(noise.speedup - noise.low, noise.high - noise.speedup) / noise.speedup
    between = stdev(math.log(max(row.value_ms, 1e-9)) for row in rows[::2])
    findings = [
        _threads(), _noise(noise.finding, floor, between), _load(crowd is not None, crowd),
        *_system(cpu, cgroup), _subnormals(slow), _virtual(),
        gpu_finding(device) if torch.device(device).type == "cuda" else None,
    ]  # fmt: skip
    seen = dict.fromkeys(n for row in rows for n in row.notices)
    return Examination(
        fingerprint(device), tuple(f for f in findings if f), noise, floor, between, tuple(seen)
    )


def _net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        *(nn.Conv2d(1, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, 32, 3, padding=1), nn.ReLU()),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 10)),
    ).eval()


def _threads() -> Finding:
    threads, cores = torch.get_num_threads(), usable_cores()
    named = ", ".join(f"{k}={os.environ[k]}" for k in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")
                      if k in os.environ)  # fmt: skip
    text = f"{threads} of {cores} usable cores" + (f" ({named})" if named else "")
    if threads > cores:
        return Finding("threads", text, "bad", f"Use `--threads {cores}` or fewer.")
    return Finding("threads", text)


def _noise(finding: str, floor: float, between: float) -> Finding:
    text = (
        f"a model against itself: {finding}; changes above ±{floor:.1%} would show; "
        f"repeated measurements differ by {between:.1%} (standard deviation)"
    )
    if finding != "no significant change" or max(floor, between) > 0.1:
        return Finding("noise floor", text, "bad", "Close other programs; prefer a "
                       "`--target-speedup`, which is a ratio.")  # fmt: skip
    if max(floor, between) > 0.03:
        return Finding("noise floor", text, "watch", "Close other programs.")
    return Finding("noise floor", text)


def _load(crowded: bool, notice: object) -> Finding:
    if crowded:
        seen = getattr(notice, "seen", "")
        return Finding("other programs", seen, "bad", "Close them, or lower `--threads`.")
    average = f"load average {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else "unknown"
    return Finding("other programs", f"cores are free ({average})")


def _system(cpu: Path, cgroup: Path) -> list[Finding | None]:
    governors = sorted({t for p in cpu.glob("cpu[0-9]*/cpufreq/scaling_governor")
                        if (t := _text(p))})  # fmt: skip
    return [_governor(governors), _turbo(_text(cpu / "intel_pstate" / "no_turbo")),
            _quota(_text(cgroup / "cpu.max")), _smt(_text(cpu / "smt" / "active"))]  # fmt: skip


def _governor(names: Sequence[str]) -> Finding:
    if not names:
        return Finding("frequency governor", "not visible (as in most virtual machines)")
    if set(names) == {"performance"}:
        return Finding("frequency governor", "performance")
    help_ = "`cpupower frequency-set -g performance` while measuring."
    return Finding("frequency governor", ", ".join(names), "watch", help_)


def _turbo(no_turbo: str) -> Finding | None:
    if no_turbo != "0":
        return None
    return Finding("turbo", "on: the clock depends on heat and load", "watch",
                   "Measure on a warm machine, or switch it off while measuring.")  # fmt: skip


def _quota(text: str) -> Finding | None:
    words = text.split()
    if len(words) != 2 or not all(w.isdigit() for w in words):
        return None
    cores = int(words[0]) / int(words[1])
    quota = f"this container may use {cores:g} cores of time"
    if cores >= torch.get_num_threads():
        return Finding("CPU quota", quota)
    remedy = f"Use `--threads {max(1, int(cores))}`: above it the kernel pauses it."
    return Finding("CPU quota", quota, "bad", remedy)


def _smt(active: str) -> Finding | None:
    if active != "1":
        return None
    remedy = "Use half as many `--threads` as cores and see whether it is faster."
    return Finding("hyper-threading", "on: two of the cores may be halves of one", "watch", remedy)


def _subnormal_cost(clock: Clock) -> float:
    """The ratio of the times that arithmetic on subnormal and on normal numbers takes."""
    normal, tiny = torch.full((1 << 16,), 0.5), torch.full((1 << 16,), 1e-40)

    def best(x: Tensor) -> float:
        out = torch.empty_like(x)
        return min(clock.time(lambda: torch.mul(x, 0.5, out=out)) for _ in range(20))

    return best(tiny) / max(best(normal), 1e-9)


def _subnormals(times: float) -> Finding:
    text = f"{times:.1f}x the time of normal numbers"
    if times < SLOW_SUBNORMALS:
        return Finding("subnormal numbers", text)
    return Finding("subnormal numbers", text, "watch", "Keep `flush_subnormals` in recipes.")


def _virtual(cpuinfo: Path = Path("/proc/cpuinfo")) -> Finding | None:
    flags = next((t for t in _text(cpuinfo).splitlines() if t.startswith("flags")), "")
    if "hypervisor" not in flags.split():
        return None
    return Finding("virtual machine", "yes: its host may give time to other guests", "watch",
                   "Prefer a `--target-speedup`, and repeat what matters.")  # fmt: skip


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return ""
