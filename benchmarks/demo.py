"""The main job on the built-in network: `python benchmarks/demo.py`. Prints one markdown row."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import modelspeed
import torch
from torch.utils.benchmark import Timer


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out"
        started = time.monotonic()
        command = [sys.executable, "-m", "modelspeed", "demo", "--out", str(out), "--json"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        took = time.monotonic() - started
        record = json.loads(done.stdout)
        model, x = modelspeed.load(out), torch.randn(1, 1, 32, 32)
        with torch.inference_mode():
            timer = Timer("model(x)", globals={"model": model, "x": x}, num_threads=2)
            apart = timer.blocked_autorange(min_run_time=5).median * 1e3
    final, quality = record["final"]["value_ms"], record["quality"]
    print(f"exit {done.returncode}, verdict {record['verdict']}, {took:.0f} s in all")
    print("| original ms | result ms | speed-up | accuracy | torch.utils.benchmark ms | ratio |")
    print("|---|---|---|---|---|---|")
    print(
        f"| {record['baseline']['value_ms']:.3f} | {final:.3f} | "
        f"{record['speedup']['speedup']:.2f}x | {quality['baseline']:.4f} -> "
        f"{quality['final']:.4f} | {apart:.3f} | {apart / final:.3f} |"
    )
    print(f"\nMachine: {record['machine']['cpu']}, {record['machine']['threads']} threads.")


if __name__ == "__main__":
    main()
