"""The main job on the built-in network: `python benchmarks/demo.py`. Prints markdown tables.

The verdict's figures are held against `torch.utils.benchmark`, which times the user's eager
model and the written artifact in turns in five processes, each beside modelspeed's timer.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

PROCESSES, TURNS = 5, 3
APART = """
import sys, torch, modelspeed
from importlib.resources import files
from pathlib import Path
from torch.utils.benchmark import Timer
from modelspeed.profiling.timer import measure
from modelspeed.checkpoints.factory import load_factory
from modelspeed.checkpoints.read import read
folder = Path(str(files("modelspeed.examples.digits")))
factory = load_factory("model.py:build", folder)
eager = read(folder / "digits_resnet.pt", factory=factory, args={"width": 32}).module
x = torch.randn(1, 1, 32, 32)
with torch.inference_mode():
    for _ in range(int(sys.argv[2])):
        for model in (eager, modelspeed.load(sys.argv[1])):
            timer = Timer("model(x)", globals={"model": model, "x": x}, num_threads=2)
            print(timer.blocked_autorange(min_run_time=1).median * 1e3)
            print(measure(lambda: model(x), max_seconds=1.0).value_ms)
"""


def apart(folder: Path) -> list[float]:
    """Median ms: the eager model by torch's timer and by ours, then the artifact by both."""
    rows: list[list[float]] = []
    for _ in range(PROCESSES):
        command = [sys.executable, "-c", APART, str(folder), str(TURNS)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        values = [float(line) for line in done.stdout.split()]
        rows += [values[i : i + 4] for i in range(0, len(values), 4)]
    return [median(column) for column in zip(*rows, strict=True)]


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out"
        started = time.monotonic()
        command = [sys.executable, "-m", "modelspeed", "demo", "--out", str(out), "--json"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        took = time.monotonic() - started
        record = json.loads(done.stdout)
        eager, eager_ours, tuned, tuned_ours = apart(out)
    before, final = record["baseline"]["value_ms"], record["final"]["value_ms"]
    quality = record["quality"]
    print(
        f"exit {done.returncode}, verdict {record['verdict']}, {took:.0f} s in all, accuracy "
        f"{quality['baseline']:.4f} -> {quality['final']:.4f}\n"
    )
    print("| measured by | original ms | result ms | speed-up |\n|---|---|---|---|")
    for name, a, b in (
        ("the verdict", before, final),
        ("modelspeed's timer, later", eager_ours, tuned_ours),
        ("torch.utils.benchmark, beside it", eager, tuned),
    ):
        print(f"| {name} | {a:.3f} | {b:.3f} | {a / b:.2f}x |")
    print(f"| timer / torch | {eager_ours / eager:.3f} | {tuned_ours / tuned:.3f} | |")
    print(f"| verdict / torch | {before / eager:.3f} | {final / tuned:.3f} | |")
    print(f"\nMachine: {record['machine']['cpu']}, {record['machine']['threads']} threads.")


if __name__ == "__main__":
    main()
