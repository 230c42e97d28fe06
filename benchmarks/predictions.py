"""Latencies as a search predicts them beside those it measures: `predictions.py [NET ...]`.

For each net candidates at several shares of the eager latency are searched under the runtime that
`--runtime` names (default: auto): widths, dropped blocks, layers in integers. Weights are random
and there are no data: only times are asked for. What the search expects of a candidate, once it
has measured another one of the same formats, is compared with what it then measures. Markdown.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from statistics import median

import nets
import torch
from modelspeed.configs.load import parse_recipe
from modelspeed.configs.recipe import make_step
from modelspeed.core.progress import Silent
from modelspeed.core.records import Target
from modelspeed.profiling.machine import fingerprint
from modelspeed.search.search import Search
from modelspeed.tuning.delivery import baseline_record
from modelspeed.tuning.job import Job
from modelspeed.tuning.lab import SessionLab
from modelspeed.tuning.session import open_session

SHARES = (0.7, 0.5, 0.35, 0.25)  # of the latency that lossless work reaches
NETS = {
    "resnet": (1, 1, 32, 32), "mobile": (1, 1, 32, 32), "vit": (1, 1, 32, 32),
    "sound": (1, 1, 400), "resnet18": (1, 3, 224, 224),
}  # fmt: skip
STEPS = ("drop_blocks", "prune")


def errors(name: str, folder: Path, runtime: str) -> tuple[str, list[float]]:
    """The runtime that was searched under, and |expected / measured - 1| of each candidate."""
    torch.manual_seed(0)
    checkpoint = folder / f"{name}.pt"
    torch.save(getattr(nets, name)().state_dict(), checkpoint)
    recipe = parse_recipe("version: 1\nlimits: {minutes: 60}\n", "benchmark", Path.cwd())
    steps = tuple(make_step(n) for n in STEPS)
    recipe = recipe.model_copy(update={"adjust": steps})
    inputs = ({"shape": list(NETS[name]), "dtype": "float32"},)
    target = Target(speedup=2.0, runtime=runtime)
    job = Job(str(checkpoint), target, f"nets.py:{name}", str(nets.HERE), {}, inputs)
    session = open_session(job, recipe, Silent()).with_baseline()
    session = session.with_kernels(session.original)
    free, used = session.relative_latency(session.original)
    record = baseline_record(session, "tune", session.reference)
    prune = next(s for s in recipe.adjust if s.name == "prune")
    search = Search.of(SessionLab(session, record, folder / "out", used), prune, free)
    for share in SHARES:
        search.solve(share * free.value_ms)
    told = [t for t in search.trials if t.expected_ms is not None and not t.failed]
    return used, [abs(t.expected_ms / t.latency.value_ms - 1.0) for t in told]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("nets", nargs="*", default=list(NETS), metavar="NET")
    parser.add_argument("--runtime", default="auto")
    asked = parser.parse_args()
    print("| net | runtime | candidates | median error | largest |", flush=True)
    print("|---|---|---|---|---|")
    for name in asked.nets:
        with tempfile.TemporaryDirectory() as folder:
            used, row = errors(name, Path(folder), asked.runtime)
        middle = f"{100 * median(row):.1f} % | {100 * max(row):.1f} %" if row else "- | -"
        print(f"| {name} | {used} | {len(row)} | {middle} |", flush=True)
    machine = fingerprint("cpu")
    print(f"\nMachine: {machine.cpu}, {machine.threads} threads, torch {machine.torch}.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
