"""Seconds of a search for ResNet-18 at 224x224, tables cold and cached: `search_time.py`.

Ranking, timing layers, solving, building, measuring and compensating candidates until the best at
half of the eager latency is found; `tune` then also verifies it in a fresh process. Each row is a
process of its own; `--threads` as torch has them.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
import warnings
from pathlib import Path

import torch
from modelspeed.configs.load import parse_recipe
from modelspeed.configs.recipe import make_step
from modelspeed.core.progress import Silent
from modelspeed.core.records import Target
from modelspeed.search.search import Search
from modelspeed.tuning.delivery import baseline_record
from modelspeed.tuning.job import Job
from modelspeed.tuning.lab import SessionLab
from modelspeed.tuning.session import open_session

sys.path.insert(0, str(Path(__file__).parent))
import nets

SHARES = (0.5, 0.35)


class Stages(Silent):
    """Says when each stage began."""

    def __init__(self) -> None:
        self.started = time.monotonic()

    def stage(self, text: str, total: float | None = None) -> None:
        self.note(text)

    def note(self, text: str) -> None:
        print(f"  {time.monotonic() - self.started:6.1f} s {text}", file=sys.stderr, flush=True)


def search(checkpoint: Path, share: float) -> tuple[float, float]:
    """Seconds, and the part of the budget that is used."""
    recipe = parse_recipe(
        f"version: 1\ndata: {{factory: '{nets.HERE}/nets.py:photos'}}\nlimits: {{minutes: 60}}\n",
        "benchmark", Path.cwd(),
    )  # fmt: skip
    steps = tuple(make_step(n) for n in ("drop_blocks", "prune", "compensate"))
    recipe = recipe.model_copy(update={"adjust": steps})
    inputs = ({"shape": [1, 3, 224, 224], "dtype": "float32"},)
    job = Job(str(checkpoint), Target(speedup=2.0), "nets.py:resnet18", str(nets.HERE), {}, inputs)
    session = open_session(job, recipe, Stages()).with_baseline()
    session = session.with_kernels(session.original)
    free, runtime = session.relative_latency(session.original)
    record = baseline_record(session, "tune", session.reference)
    lab = SessionLab(session, record, Path("unused"), runtime)
    started = time.monotonic()
    budget_ms = share * session.reference.value_ms
    trial = Search.of(lab, steps[1], free).solve(budget_ms)
    seconds = time.monotonic() - started
    return seconds, trial.latency.high_ms / budget_ms if trial else 0.0


def main() -> None:
    warnings.simplefilter("ignore")
    print(f"{torch.get_num_threads()} threads\n\n| tables | target | seconds | of target |")
    print("|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        os.environ["MODELSPEED_CACHE"] = folder
        checkpoint = Path(folder) / "resnet18.pt"
        torch.save(nets.resnet18().state_dict(), checkpoint)
        for tables, share in zip(("cold", "cached"), SHARES, strict=True):
            seconds, used = search(checkpoint, share)
            print(f"| {tables} | {share:.0%} | {seconds:.0f} | {used:.1%} |", flush=True)


if __name__ == "__main__":
    main()
