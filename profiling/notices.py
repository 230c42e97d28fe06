"""The closed list of warnings: what was seen, the likely cause, the flag that helps."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from ..core.records import Machine, Notice
from .statistics import half_width, percentile

CODES = (
    "noisy",
    "time_bound",
    "cold",
    "drift",
    "threads_over_cores",
    "cpu_contention",
    "disturbed",
    "gpu_slowed",
    "fewer_threads",
    "subnormal_weights",
    "other_machine",
    "no_compiler",
    "no_runtime",
    "untrusted_package",
    "broken_package",
    "converted_again",
    "runtime_fails",
    "runtime_differs",
    "keeps_state",
)
DRIFT = 0.05
WIDTH = 0.01
Interval = tuple[float, float, float]


@dataclass(frozen=True)
class Load:
    """Seconds since some start: wall clock, CPU of this process, CPU of the whole machine."""

    wall: float
    own: float
    machine: float
    cores: int


def read_load() -> Load | None:
    """A snapshot from /proc/stat; None where the system has none."""
    try:
        first = Path("/proc/stat").read_text().split("\n", 1)[0].split()
        ticks = os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, AttributeError):
        return None
    user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, first[1:9])
    busy = (user + nice + system + irq + softirq + steal) / ticks
    return Load(time.perf_counter(), time.process_time(), busy, os.cpu_count() or 1)


def noisy(
    samples: Sequence[float], interval: tuple[float, float, float], p: float, threads: int = 1
) -> Notice | None:
    width = half_width(*interval)
    if width <= WIDTH:
        return None
    mean = sum(samples) / len(samples)
    spread = (sum((s - mean) ** 2 for s in samples) / len(samples)) ** 0.5 / mean
    return Notice(
        "noisy",
        f"The 95 % interval of p{p:g} is ±{width:.1%}, wider than ±1 % "
        f"({len(samples)} samples, coefficient of variation {spread:.0%}).",
        "Other work on this machine, frequency scaling or too little time.",
        f"Close other programs{_lower(threads)}."
        + ("" if p == 50 else " The median (`--percentile 50`) needs fewer samples."),
    )


def _lower(threads: int) -> str:
    return ", or lower `--threads`" if threads > 1 else ""


def cheaper(p: float, batch: int) -> str:
    """The flags that make a measurement need less time; empty where there is none left."""
    flags = ["a smaller `--batch`"] if batch > 1 else []
    if p != 50:
        flags.append("`--percentile 50`")
    return f"Use {' or '.join(flags)}." if flags else ""


def time_bound(
    samples: int, seconds: float, limit: float, p: float = 50.0, batch: int = 1
) -> Notice | None:
    if seconds < limit:
        return None
    return Notice(
        "time_bound",
        f"Sampling stopped after {seconds:.1f} s with {samples} samples, before the interval was "
        "within 1 %.",
        "The model is slow, the machine noisy or the percentile far in the tail.",
        cheaper(p, batch) or "Run again when the machine is quiet.",
    )


def cold(steady: bool, seconds: float) -> Notice | None:
    if steady:
        return None
    return Notice(
        "cold",
        f"Calls were still getting faster after {seconds:.1f} s of warm-up.",
        "Lazy compilation, a cold file cache or a processor leaving a low-power state.",
        "Run the command again, or use `--runtime plain`.",
    )


def drift(samples: Sequence[float], p: float, threads: int = 1) -> Notice | None:
    half = len(samples) // 2
    if half < 10:
        return None
    first, last = percentile(samples[:half], p), percentile(samples[half:], p)
    if first <= 0 or abs(last / first - 1.0) <= DRIFT:
        return None
    return Notice(
        "drift",
        f"p{p:g} went from {first:.3g} ms in the first half to {last:.3g} ms in the second.",
        "Heat, frequency scaling or other work that came or went.",
        f"Run again when the machine is cool and idle{_lower(threads)}.",
    )


def threads_over_cores(threads: int, cores: int) -> Notice | None:
    if threads <= cores:
        return None
    return Notice(
        "threads_over_cores",
        f"{threads} threads share {cores} usable cores.",
        "A thread count above what this process may use, for one in a container.",
        f"Use `--threads {cores}` or fewer.",
    )


def cpu_contention(before: Load | None, after: Load | None, threads: int = 1) -> Notice | None:
    """Seen when other processes keep a full machine busy while we sample."""
    if before is None or after is None:
        return None
    wall = after.wall - before.wall
    if wall < 0.2:  # /proc/stat counts in steps of 10 ms
        return None
    total = (after.machine - before.machine) / wall
    others = total - (after.own - before.own) / wall
    if others < 0.25 or total < 0.9 * after.cores:
        return None
    return Notice(
        "cpu_contention",
        f"Other processes kept {others:.1f} of {after.cores} cores busy while sampling.",
        "Other programs or other guests of the same host.",
        f"Close them{_lower(threads)}.",
    )


def fewer_threads(before: int, after: int, before_ms: float, after_ms: float, who: str) -> Notice:
    """Seen when a busy machine made threads that wait for each other too slow to be used."""
    return Notice(
        "fewer_threads",
        f"With {before} threads a call took {before_ms:.3g} ms, with {after} {after_ms:.3g} ms: "
        f"everything in this run is measured with {after}.",
        f"The machine is busy: {who}." if who else "Other programs or other guests of the host.",
        f"Run again when the machine is quiet, or give `--threads {before}` to keep them.",
    )


def disturbed(original_ms: float, usual_ms: float, slower: float) -> Notice | None:
    """Seen when the original ran slower throughout than it had run before."""
    if original_ms <= slower * usual_ms:
        return None
    return Notice(
        "disturbed",
        f"The original took {original_ms:.3g} ms here and {usual_ms:.3g} ms earlier in this run.",
        "The machine became slower: another guest of its host, heat, or other programs.",
        "Run again when the machine is quiet, or give a `--target-speedup`, which is a ratio.",
    )


def subnormal_weights(tensors: Mapping[str, torch.Tensor]) -> Notice | None:
    """Names tensors (fp32 or fp64) holding non-zero values below the smallest normal number."""
    counts: dict[str, int] = {}
    for name, tensor in tensors.items():
        if tensor.dtype not in (torch.float32, torch.float64) or tensor.is_mkldnn:
            continue
        size = tensor.detach().abs()
        count = int(((size > 0) & (size < torch.finfo(tensor.dtype).tiny)).sum())
        if count:
            counts[name] = count
    if not counts:
        return None
    worst = max(counts, key=lambda name: counts[name])
    return Notice(
        "subnormal_weights",
        f"{sum(counts.values())} weights in {len(counts)} tensors are subnormal, "
        f"most in `{worst}`.",
        "Long training with weight decay; such numbers make CPUs 5 to 50 times slower.",
        "Add `flush_subnormals` to the recipe.",
    )


# A new kernel or Python moves no kernel time; these do.
_FACTS = {
    "cpu": "CPU", "isa": "instructions", "cores": "cores", "threads": "threads", "device": "device",
    "torch": "torch",
}  # fmt: skip


def other_machine(tuned: Machine, here: Machine) -> Notice | None:
    """Seen when an artifact is loaded where its latencies were not measured."""
    pairs = {word: (getattr(tuned, f), getattr(here, f)) for f, word in _FACTS.items()}
    other = {word: pair for word, pair in pairs.items() if pair[0] != pair[1]}
    if not other:
        return None
    seen = "; ".join(f"{word}: {before}, here {after}" for word, (before, after) in other.items())
    only = set(other) == {"threads"}
    return Notice(
        "other_machine",
        f"The artifact was tuned with other conditions than these ({seen}).",
        "Another thread count in this program." if only else "Another machine or environment.",
        f"Call `torch.set_num_threads({tuned.threads})` before, or tune with `--threads "
        f"{here.threads}`." if only else "Run `modelspeed tune` here.",
    )  # fmt: skip


def no_compiler(runtime: str, reason: str) -> Notice:
    """Seen when an artifact that runs compiled is loaded where nothing can be compiled."""
    return Notice(
        "no_compiler",
        f"The artifact was tuned for `--runtime {runtime}`, which {reason}.",
        "A smaller image or machine than the one it was tuned on.",
        "Install a compiler, or tune with `--runtime lowered`; it runs lowered now.",
    )


def no_runtime(runtime: str, reason: str, times: Mapping[str, float]) -> Notice:
    """Seen when an artifact is loaded where the library that it was tuned to run under is not."""
    took = ", ".join(f"`{name}` {ms:.3g} ms" for name, ms in times.items())
    return Notice(
        "no_runtime",
        f"The artifact is to run under `{runtime}`, which {reason}.",
        "Another environment than the one it was tuned in."
        + (f" There a call took: {took}." if took else ""),
        "Install it, or run `modelspeed tune` here; it runs on torch's own kernels now.",
    )


def untrusted_package() -> Notice:
    """Seen when an artifact holds compiled code that this user's modelspeed did not make here."""
    return Notice(
        "untrusted_package",
        "The artifact holds compiled code (`model.aoti.pt2`), which was not run.",
        "It was compiled elsewhere, or the cache of modelspeed was emptied since.",
        "Pass `trust_compiled=True` if you trust where it comes from; else it is compiled again.",
    )


def broken_package(reason: str) -> Notice:
    """Seen when an artifact's compiled code does not load or gives other outputs."""
    return Notice(
        "broken_package",
        f"The artifact's compiled code (`model.aoti.pt2`) is not used: {reason.rstrip('.')}.",
        "Another build of torch, or a package of another model.",
        "Run `modelspeed tune` here; the model is compiled again now.",
    )


def converted_again(runtime: str, reason: str) -> Notice:
    """Seen when the graph that an artifact holds in a library's own form is not taken here."""
    return Notice(
        "converted_again",
        f"The artifact's graph for `{runtime}` is not used: {reason.rstrip('.')}.",
        "Another version of the library, another CPU, or files of another model.",
        "Run `modelspeed tune` here; the graph is converted again at each load now.",
    )


def runtime_fails(runtime: str, reason: str) -> Notice:
    """Seen when an artifact is loaded where what it was tuned to run under does not work."""
    return Notice(
        "runtime_fails",
        f"The artifact was tuned for `{runtime}`, which fails here: {reason.rstrip('.')}.",
        "Another GPU, driver, compiler or torch than the ones it was tuned with.",
        "Run `modelspeed tune` here; it runs without that now.",
    )


def runtime_differs(runtime: str, reason: str) -> Notice:
    """Seen when an artifact's fast form gives other outputs here than its plain graph."""
    return Notice(
        "runtime_differs",
        f"The artifact was tuned for `{runtime}`, which is not used: {reason.rstrip('.')}.",
        "Another CPU, GPU or torch, whose kernels compute something else.",
        "Run `modelspeed tune` here; it runs as the plain graph now.",
    )


def keeps_state(state: Mapping[str, torch.Tensor]) -> Notice | None:
    """Seen when a call of the model writes some of its buffers."""
    if not state:
        return None
    names = ", ".join(f"`{name}`" for name in list(state)[:5])
    more = f" and {len(state) - 5} more" if len(state) > 5 else ""
    return Notice(
        "keeps_state",
        f"Every call writes {names}{more}.",
        "The model keeps something from one call to the next, such as a cache or a counter.",
        "Nothing to do: they are saved as the checkpoint has them, whatever measuring wrote.",
    )
