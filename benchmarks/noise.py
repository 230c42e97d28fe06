"""`tune` beside a process that comes and goes: `noise.py [BEFORE] [--runs 20]`. Markdown tables.

The demo's network, an absolute target, and a competitor that keeps a core busy for a tenth of a
second to half a minute, then sleeps as long, by a seed for each run. Afterwards, on the quiet
machine, the written artifact and the original are timed again: is the verdict true, and how much
accuracy was given up beside a run without competitor? BEFORE, a commit, has the same runs.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from two_commits import VERDICTS, Commit, checked_out

DIGITS = Path(__file__).resolve().parents[1] / "examples" / "digits"
BUSY = "while True: pass"
NEAR = 0.005  # of the accuracy
TRUTH = """
import json, sys, modelspeed, torch
from modelspeed.backends.readiness import runner
from modelspeed.core.model_io import Inputs
from modelspeed.examples.digits.model import build
from modelspeed.profiling.timer import measure_interleaved
torch.set_num_threads(int(sys.argv[2]))
model = build()
model.load_state_dict(torch.load(sys.argv[3], weights_only=True))
fast = modelspeed.load(sys.argv[1])
inputs = Inputs.of(torch.randn(1, 1, 32, 32))
with torch.no_grad():
    rows = measure_interleaved([runner(m, inputs) for m in (model.eval(), fast)], max_seconds=3.0)
print(json.dumps([row.value_ms for row in rows]))
"""


@dataclass(frozen=True)
class Run:
    """`truth`: ms of the artifact on the quiet machine; `code` and the record as they were."""

    code: int
    verdict: str
    accuracy: float | None
    truth: float
    seconds: float
    threads: int

    def is_false(self, target_ms: float) -> bool:
        """True if the verdict says what the quiet machine does not; 1 % is left to its noise."""
        met = self.truth <= 1.01 * target_ms
        missed = self.truth >= 0.99 * target_ms
        return (self.verdict == "met" and not met) or (self.verdict == "missed" and not missed)


@contextmanager
def competitor(seed: int | None) -> Iterator[None]:
    """Processes that keep a core busy now and then; none without a seed."""
    if seed is None:
        yield
        return
    chance, over = random.Random(seed), threading.Event()
    process = subprocess.Popen([sys.executable, "-c", BUSY])

    def toggle() -> None:
        runs = True
        while not over.is_set():
            process.send_signal(signal.SIGCONT if runs else signal.SIGSTOP)
            over.wait(math.exp(chance.uniform(math.log(0.1), math.log(30.0))))
            runs = not runs

    thread = threading.Thread(target=toggle)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        process.kill()
        process.wait()


def tuned(commit: Commit, folder: Path, target_ms: float, minutes: float, seed: int | None) -> Run:
    """One run of `tune`, and the truth about what it wrote."""
    job, out = folder / "job", folder / "out"
    shutil.copytree(DIGITS, job)
    recipe = job / "modelspeed.yaml"
    recipe.write_text(recipe.read_text().replace("minutes: 3 ", f"minutes: {minutes} "))
    started = time.monotonic()
    words = ("-m", "modelspeed", "tune", str(job / "digits_resnet.pt"), "--config", str(recipe))
    words += ("--target-ms", f"{target_ms:.4g}", "--out", str(out), "--json")
    with competitor(seed):
        done = commit.python(*words, cache=str(folder / "cache"))
    seconds = time.monotonic() - started
    if done.returncode not in VERDICTS:
        print(f"exit {done.returncode}: {done.stderr.strip().splitlines()[-1:]}", file=sys.stderr)
        return Run(done.returncode, "failed", None, math.inf, seconds, 0)
    record = json.loads(done.stdout)
    threads = record["target"]["threads"] or record["machine"]["threads"]
    accuracy = record["quality"]["final"]
    if seconds > limit_of(minutes):
        spent = ", ".join(f"{row['what']} {row['seconds']:.0f} of {row['planned'] or 0:.0f} s"
                          for row in record["time_spent"])  # fmt: skip
        print(f"late: {spent}", file=sys.stderr)
    truth = quiet_ms(commit, out, threads)[1]
    return Run(done.returncode, record["verdict"], accuracy, truth, seconds, threads)


def limit_of(minutes: float) -> float:
    """Seconds that a run may take: its limit with 5 % and 30 s."""
    return 60 * minutes * 1.05 + 30


def quiet_ms(commit: Commit, out: Path, threads: int) -> tuple[float, float]:
    """The original's and the artifact's time, nothing beside them: the least of three goes."""
    words = ("-c", TRUTH, str(out), str(threads), str(DIGITS / "digits_resnet.pt"))
    rows = [json.loads(commit.python(*words).stdout) for _ in range(3)]
    return min(row[0] for row in rows), min(row[1] for row in rows)


def measured(
    commit: Commit, target_ms: float, minutes: float, seeds: list[int | None]
) -> list[Run]:
    runs = []
    for seed in seeds:
        with tempfile.TemporaryDirectory() as folder:
            runs.append(tuned(commit, Path(folder), target_ms, minutes, seed))
        row = runs[-1]
        print(f"{commit.name} {seed}: exit {row.code}, {row.verdict}, accuracy {row.accuracy}, "
              f"{row.truth:.3g} ms quiet, {row.threads} threads, {row.seconds:.0f} s",
              file=sys.stderr, flush=True)  # fmt: skip
    return runs


def row_of(commit: Commit, runs: list[Run], quiet: Run, target_ms: float, minutes: float) -> str:
    written = [r for r in runs if r.accuracy is not None]
    accuracies = [r.accuracy for r in written if r.accuracy is not None]
    least = min(accuracies, default=math.nan)
    lost = sum(1 for a in accuracies if quiet.accuracy is not None and a < quiet.accuracy - NEAR)
    false = sum(1 for r in written if r.is_false(target_ms))
    late = sum(1 for r in runs if r.seconds > limit_of(minutes))
    verdicts = ", ".join(
        f"{sum(1 for r in runs if r.verdict == v)} {v}" for v in sorted({r.verdict for r in runs})
    )
    middle = median(r.seconds for r in runs)
    return (
        f"| {commit.name} | {verdicts} | {false} | {quiet.accuracy} | {least} | {lost} | "
        f"{middle:.0f} | {late} |"
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("before", nargs="?", help="a commit to compare with")
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--before-runs", type=int, help="of BEFORE (default: as many)")
    parser.add_argument("--seeds", type=int, nargs="+", help="these alone, not 0 to RUNS")
    parser.add_argument("--minutes", type=float, default=1.5)
    parser.add_argument("--share", type=float, default=0.35, help="target, of the eager latency")
    asked = parser.parse_args()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        names = [n for n in (asked.before, "HEAD") if n]
        commits = [
            stack.enter_context(checked_out(n, folder / str(i))) for i, n in enumerate(names)
        ]
        whole = eager_ms(commits[-1])
        target = asked.share * whole
        print(f"eager {whole:.3g} ms, target {target:.3g} ms", file=sys.stderr, flush=True)
        rows = []
        for commit in commits:
            few = commit is commits[0] and asked.before and asked.before_runs is not None
            count = asked.before_runs if few else asked.runs
            seeds: list[int | None] = [None, *(asked.seeds or range(count))]
            quiet, *runs = measured(commit, target, asked.minutes, seeds)
            rows.append(row_of(commit, runs, quiet, target, asked.minutes))
    print(f"Eager {whole:.3g} ms, target {target:.3g} ms, `limits.minutes: {asked.minutes:g}`, "
          f"{asked.runs} runs, {os.cpu_count()} cores.\n")  # fmt: skip
    print("| commit | verdicts | false on the quiet machine | accuracy without competitor | least "
          "accuracy with | 0.5 points below | median s | over the limit |")  # fmt: skip
    print("|---|---|---|---|---|---|---|---|")
    print("\n".join(rows))
    return 0


def eager_ms(commit: Commit) -> float:
    """Of the original on the quiet machine, with as many threads as torch takes."""
    words = ("-m", "modelspeed", "profile", str(DIGITS / "digits_resnet.pt"), "--config")
    words += (str(DIGITS / "modelspeed.yaml"), "--json")
    rows = [json.loads(commit.python(*words).stdout) for _ in range(3)]
    return float(min(row["baseline"]["value_ms"] for row in rows))


if __name__ == "__main__":
    sys.exit(main())
