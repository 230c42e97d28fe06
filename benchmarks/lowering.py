"""Lossless lowering against the user's eager model, per runtime, interleaved in one run.

python benchmarks/lowering.py [--seconds 5]
"""

from __future__ import annotations

import argparse
from pathlib import Path

import modelspeed.examples.digits as digits
import torch
from modelspeed.backends.readiness import runner
from modelspeed.checkpoints.read import read
from modelspeed.core.user_code import load_factory
from modelspeed.graph.capture import capture, clone
from modelspeed.graph.edits.apply import FoldBatchNorm, apply
from modelspeed.graph.edits.folding import foldable
from modelspeed.graph.lowering.lower import lowerings
from modelspeed.profiling.machine import fingerprint
from modelspeed.profiling.statistics import compare_samples
from modelspeed.profiling.timer import measure_interleaved


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--seconds", type=float, default=5.0, help="time bound per runtime")
    seconds = parser.parse_args().seconds
    folder = Path(str(digits.__file__)).parent
    factory = load_factory("model.py:build", folder)
    source = read(folder / "digits_resnet.pt", factory=factory, args={"width": 32}).module
    inputs = (torch.randn(1, 1, 32, 32),)
    graph = capture(source, inputs)
    norms = [FoldBatchNorm(n.name) for n in graph.graph.nodes if foldable(n)]
    modules = {"eager": source, "graph, batch norms folded": apply(clone(graph), norms)}
    modules |= {f"lowered: {n}": build() for n, build in lowerings(graph, inputs).items()}
    rows = measure_interleaved([runner(m, inputs) for m in modules.values()], max_seconds=seconds)
    print("| runtime | p50 ms | speed-up over eager (99 % interval) |\n|---|---|---|")
    for name, row in zip(modules, rows, strict=True):
        comparison = compare_samples(rows[0].samples_ms, row.samples_ms, 50)
        print(f"| {name} | {row.value_ms:.2f} | {comparison.speedup:.2f} "
              f"({comparison.low:.2f}–{comparison.high:.2f}) |")  # fmt: skip
    machine = fingerprint()
    print(f"\nMachine: {machine.cpu}, {machine.threads} threads, torch {machine.torch}.")


if __name__ == "__main__":
    main()
