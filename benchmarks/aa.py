"""A/A test: one model profiled against itself must show no significant change.

    python benchmarks/aa.py [--repeats 40] [--seconds 2] [--threads 1] [--device cuda] [--lines]

Each is measured twice: to figures of 1 %, and until "is B faster than A" is answered. Prints JSON.
Exit code 1 when fewer than 95 % of either say "no significant change", or when the measured p50
differs from `torch.utils.benchmark`'s median by more than 5 %. `--lines`: also into `$OUT`, as the
steps of `benchmarks/gpu` do, and the exit code says nothing of the machine.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from pathlib import Path
from statistics import median

import torch
from modelspeed.profiling.machine import fingerprint, threads
from modelspeed.profiling.questions import Order
from modelspeed.profiling.statistics import compare_samples
from modelspeed.profiling.timer import measure, measure_interleaved
from torch import nn
from torch.utils.benchmark import Timer


def build(width: int = 16) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        *(nn.Conv2d(1, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU()),
        *(nn.Conv2d(width, 2 * width, 3, stride=2, padding=1), nn.ReLU()),
        *(nn.Conv2d(2 * width, 4 * width, 3, stride=2, padding=1), nn.ReLU()),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4 * width, 10)),
    ).eval()


def one_call_ms(timer: Timer, calls: int) -> float:
    return median(timer.timeit(1).median for _ in range(calls)) * 1e3


def agreement(
    model: nn.Module, x: torch.Tensor, count: int, seconds: float, device: str, calls: int
) -> dict[str, float]:
    """Ours between two independent timings, so that a machine that drifts is seen as such.

    `blocked_autorange` gives the median of block *means*, which lies above the median call where
    the distribution has a tail; so p50 is held against torch's timing of single calls, and the
    block median is printed beside our mean.
    """
    timer = Timer("model(x)", globals={"model": model, "x": x}, num_threads=count)
    first = one_call_ms(timer, calls)
    ours = measure(lambda: model(x), max_seconds=seconds, device=device)
    second = one_call_ms(timer, calls)
    theirs = (first + second) / 2
    return {
        "measured_p50_ms": ours.value_ms,
        "torch_benchmark_one_call_ms": theirs,
        "difference": ours.value_ms / theirs - 1,
        "torch_benchmark_with_itself": second / first - 1,
        "measured_mean_ms": sum(ours.samples_ms) / len(ours.samples_ms),
        "torch_benchmark_block_ms": timer.blocked_autorange(min_run_time=1.0).median * 1e3,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--repeats", type=int, default=40)
    parser.add_argument("--seconds", type=float, default=2.0, help="time bound per run")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--percentile", type=float, default=50.0)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--calls", type=int, default=1000, help="that torch's own timer makes")
    parser.add_argument("--lines", action="store_true")
    options = parser.parse_args()
    device = options.device
    model, x = build().to(device), torch.randn(1, 1, 32, 32).to(device)
    findings: list[str] = []
    early: list[str] = []
    speedups: list[float] = []
    seen: Counter[str] = Counter()
    with threads(options.threads) as count, torch.inference_mode():
        for seed in range(options.repeats):
            a, b = measure_interleaved(
                [lambda: model(x)] * 2,
                percentile=options.percentile,
                max_seconds=options.seconds,
                seed=seed,
                device=device,
            )
            result = compare_samples(a.samples_ms, b.samples_ms, options.percentile)
            findings.append(result.finding)
            speedups.append(result.speedup)
            order = Order(options.percentile)
            measure_interleaved(
                [lambda: model(x)] * 2,
                percentile=options.percentile,
                max_seconds=options.seconds,
                min_seconds=0.0,
                seed=seed,
                device=device,
                question=order,
            )
            early.append(order.comparison().finding)
            seen.update({notice.code for notice in (*a.notices, *b.notices)})
        timing = agreement(model, x, count, options.seconds, device, options.calls)
        machine = fingerprint(device)
    unchanged = findings.count("no significant change")
    report = {
        "repeats": options.repeats,
        "no_significant_change": unchanged,
        "no_significant_change_stopped_early": early.count("no significant change"),
        "speedup_range": [min(speedups), max(speedups)],
        "notices": dict(seen),
        **timing,
        "cpu": machine.cpu,
        "threads": machine.threads,
        "torch": machine.torch,
        "device": machine.device,
    }
    print(json.dumps(report, indent=2))
    if options.lines:
        sys.path.insert(0, str(Path(__file__).parent / "gpu"))
        from lines import emit

        emit("aa", **report)
        return 0
    few = min(unchanged, early.count("no significant change")) < 0.95 * options.repeats
    return int(few or abs(timing["difference"]) > 0.05)


if __name__ == "__main__":
    raise SystemExit(main())
