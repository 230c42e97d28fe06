"""Lossless lowering against the user's eager model, on this CPU and as one with AVX2 alone.

python benchmarks/lowering.py [resnet18 digits ...] [--threads 1 2] [--seconds 4] [--auto]

Each net under eager and every lowering, interleaved in one process for each set of instructions
and thread count. `chosen`: what the tool ranks first by itself. `--auto`: OpenVINO as well.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable

import torch
from alternatives import bert, mobilenet
from modelspeed.backends.ranking import rank_backends
from modelspeed.backends.readiness import runner
from modelspeed.backends.registry import PLAIN, candidate_names, prepare
from modelspeed.core.model_io import Inputs
from modelspeed.graph.capture import capture
from modelspeed.profiling.machine import fingerprint
from modelspeed.profiling.statistics import compare_samples
from modelspeed.profiling.timer import measure_interleaved
from nets import mobile, resnet, resnet18, sound, vit
from torch import Tensor, nn

AVX2 = {"ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2"}
Net = tuple[nn.Module, Tensor]
NETS: dict[str, Callable[[], Net]] = {
    "resnet18": lambda: (resnet18(), torch.randn(1, 3, 224, 224)),
    "mobilenet": lambda: (mobilenet().model, torch.randn(1, 3, 224, 224)),
    "bert": lambda: (bert().model, torch.randint(0, 8000, (1, 128))),
    "digits": lambda: (resnet(), torch.randn(1, 1, 32, 32)),
    "mobile": lambda: (mobile(), torch.randn(1, 1, 32, 32)),
    "vit": lambda: (vit(), torch.randn(1, 1, 32, 32)),
    "sound": lambda: (sound(), torch.randn(1, 1, 1024)),
}


def rows_of(name: str, seconds: float, asked: str) -> list[dict[str, object]]:
    """By runtime: ms, the speed-up over eager with its 99 % interval, and which was chosen."""
    torch.manual_seed(0)
    model, x = NETS[name]()
    model, inputs = model.eval(), Inputs.of((x,))
    graph = capture(model, (x,))
    chosen = rank_backends(graph, inputs, asked, (inputs,)).names[0]
    modules = {"eager": model} | {
        n: prepare(graph, inputs, n) for n in (PLAIN, *candidate_names(graph, inputs, asked))
    }
    measured = measure_interleaved([runner(m, inputs) for m in modules.values()],
                                   max_seconds=seconds, min_seconds=seconds / 2)  # fmt: skip
    rows = []
    for runtime, row in zip(modules, measured, strict=True):
        gain = compare_samples(measured[0].samples_ms, row.samples_ms, 50)
        rows.append({"net": name, "runtime": runtime, "ms": row.value_ms, "gain": gain.speedup,
                     "low": gain.low, "high": gain.high, "chosen": runtime == chosen})  # fmt: skip
    return rows


def inside(names: list[str], threads: int, seconds: float, asked: str) -> None:
    torch.set_num_threads(threads)
    for name in names:
        for row in rows_of(name, seconds, asked):
            print(json.dumps(row), flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("nets", nargs="*", default=list(NETS))
    parser.add_argument("--threads", type=int, nargs="*", default=[1, 2])
    parser.add_argument("--seconds", type=float, default=4.0, help="time bound per runtime")
    parser.add_argument("--auto", action="store_true")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    word = "auto" if asked.auto else "lowered"
    if asked.inside:
        inside(asked.nets, asked.threads[0], asked.seconds, word)
        return 0
    slower = []
    print("| net | instructions | threads | eager ms | chosen | speed-up (99 %) | others |")
    print("|---|---|---|---|---|---|---|")
    for isa, extra in (("all", {}), ("AVX2", AVX2)):
        for threads in asked.threads:
            words = [sys.executable, __file__, *asked.nets, "--inside", "--threads", str(threads),
                     "--seconds", str(asked.seconds), *(["--auto"] * asked.auto)]  # fmt: skip
            done = subprocess.run(words, env=os.environ | extra, capture_output=True, text=True)
            if done.returncode:
                print(done.stderr, file=sys.stderr)
                return 1
            lines = [json.loads(line) for line in done.stdout.splitlines() if line[:1] == "{"]
            for net in asked.nets:
                rows = [row for row in lines if row["net"] == net]
                best = next(row for row in rows if row["chosen"])
                rest = ", ".join(f"{r['runtime']} {r['gain']:.2f}" for r in rows[1:] if r != best)
                print(f"| {net} | {isa} | {threads} | {rows[0]['ms']:.3g} | {best['runtime']} | "
                      f"{best['gain']:.2f} ({best['low']:.2f}–{best['high']:.2f}) | {rest} |",
                      flush=True)  # fmt: skip
                if best["high"] < 1:
                    slower.append((net, isa, threads))
    machine = fingerprint()
    print(f"\nMachine: {machine.cpu}, {machine.cores} cores, torch {machine.torch}.")
    print(f"Chosen and slower than eager: {slower or 'none'}.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
