"""The ladder against other policies: `python benchmarks/ladder.py [digits sound mobile]`. Markdown.

Each net gets a ladder (`modelspeed ladder`, in benchmarks/.trained, made where it is missing). Then
recorded arrivals are sent to a real stream in real time, once for each policy: every fixed rung,
greedy, SlackFit, ALERT (`ladder_policies.py`) and modelspeed's. In the cells "slow" busy processes,
one for each core, run in the middle third. The oracle (`ladder_oracle.py`) is computed from
measured times, the arrivals and the slowdown that all policies' answers showed in each second.

An entry is "share answered in time, accuracy of those answers by true labels", in %. One thread
for the model; the load comes from the other core.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import modelspeed
import nets
import torch
from ladder_oracle import oracle_plan
from ladder_policies import Alert, Fixed, Greedy, Peer, SlackFit
from modelspeed.checkpoints.ladders import read_ladder
from modelspeed.runtime.ladder.arrivals import bursts, poisson
from modelspeed.runtime.ladder.policy import LookAhead, Policy
from modelspeed.runtime.ladder.simulation import rung_times_of, simulate_stream
from modelspeed.runtime.ladder.slowdown import Slowdown
from modelspeed.runtime.ladder.stream import Stream
from torch import Tensor

DIGITS = nets.HERE.parent / "examples" / "digits"
NETS = {  # checkpoint, factory, its arguments, shape, data
    "digits": (DIGITS / "digits_resnet.pt", f"{DIGITS}/model.py:build", "{width: 32}",
               [1, 1, 32, 32], f"{DIGITS}/data.py:loaders"),
    "sound": (nets.TRAINED / "sound.pt", f"{nets.HERE}/nets.py:sound", "{}",
              [1, 1, 40], f"{nets.HERE}/nets.py:mnist1d"),
    "mobile": (nets.TRAINED / "mobile.pt", f"{nets.HERE}/nets.py:mobile", "{}",
               [1, 1, 32, 32], f"{nets.HERE}/nets.py:clutter"),
}  # fmt: skip
RECIPE = """\
version: 1
model: {{factory: '{factory}', args: {args}}}
inputs: [{{shape: {shape}, dtype: float32}}]
data: {{factory: '{data}', metric: accuracy}}
limits: {{max_drop: 0.2, minutes: {minutes}}}
adjust:
  - drop_blocks
  - prune: {{max_ratio: 0.95}}
  - compensate
  - finetune: {{epochs: 2, distill: true}}
  - quantize
  - fold_batchnorm
"""
BUSY = "while True: pass"
SLO = 4.0  # of the top rung's median
CV2 = 8.0  # squared coefficient of variation of the bursts' gaps
MODELSPEED = "modelspeed"


@dataclass(frozen=True)
class Load:
    """One cell: arrivals (ms), and whether others work in its middle third."""

    name: str
    arrivals: Sequence[float]
    slow: bool


@dataclass
class Played:
    """One policy over one load. `slowdowns`: (ms, taken over expected) of each run."""

    requests: int
    in_time: int = 0
    right: int = 0
    slowdowns: list[tuple[float, float]] = field(default_factory=list)

    @property
    def share(self) -> float:
        return self.in_time / self.requests

    @property
    def accuracy(self) -> float:
        return self.right / self.in_time if self.in_time else 0.0

    def __str__(self) -> str:
        return f"{100 * self.share:.1f}, {100 * self.accuracy:.2f}"


class Watched:
    """A ladder as its streams see it, which tells the policy what each run took."""

    def __init__(self, ladder: Any, played: Played, policy: Any, start: float) -> None:
        self.predictor, self.counts = ladder.predictor, ladder.counts
        self._ladder, self._played, self._policy, self._start = ladder, played, policy, start

    def run(self, rung: int, batch: int, args: Any, kwargs: Any, *, fits: bool) -> Any:
        outputs, how = self._ladder.run(rung, batch, args, kwargs, fits=fits)
        measured = self.predictor.times.median_ms(rung, batch)
        at = self._ladder.clock_ms() - self._start
        self._played.slowdowns.append((at, how.taken_ms / measured))
        if isinstance(self._policy, Peer):
            self._policy.observe(rung, batch, how.taken_ms)
        return outputs, how


def loads(capacity: float, seconds: float) -> Iterator[Load]:
    """`capacity`: requests a second that the top rung bears."""
    spread = CV2 + 1 + math.sqrt((CV2 + 1) ** 2 - 1)  # ratio of the two rates for that CV²
    rows = [
        (f"Poisson {share} %", poisson(share / 100 * capacity, seconds, share))
        for share in (30, 60, 90, 120, 150)
    ]
    for share in (60, 120):
        low = 2 * share / 100 * capacity / (1 + spread)
        rows.append((f"bursts {share} %", bursts(low, low * spread, seconds / 16, seconds, share)))
    rows.append(("day, up to 200 %", ramp(2.0 * capacity, seconds)))
    for slow in (False, True):
        for name, arrivals in rows:
            yield Load(name + (", slow" if slow else ""), arrivals, slow)


def ramp(most: float, seconds: float) -> list[float]:
    """A night and a day: from a tenth of `most` requests a second to it, and back."""
    even = poisson(most, seconds, 1)
    draw = torch.rand(len(even), generator=torch.Generator().manual_seed(1)).tolist()
    share = [0.1 + 0.9 * math.sin(math.pi * ms / 1000 / seconds) ** 2 for ms in even]
    return [ms for ms, part, u in zip(even, share, draw, strict=True) if u < part]


@contextmanager
def competitors(seconds: float, wanted: bool) -> Iterator[None]:
    """Busy processes in the middle third."""
    over = threading.Event()

    def work() -> None:
        if over.wait(seconds / 3):
            return
        busy = [subprocess.Popen([sys.executable, "-c", BUSY]) for _ in range(2)]
        over.wait(seconds / 3)
        for process in busy:
            process.kill()
            process.wait()

    thread = threading.Thread(target=work)
    if wanted:
        thread.start()
    try:
        yield
    finally:
        over.set()
        if wanted:
            thread.join()


def play(
    ladder: Any, make: Callable[[], Policy], load: Load, slo: float, examples: Any, seconds: float
) -> Played:
    """The load in real time."""
    ladder.predictor.slowdown = Slowdown()  # each policy begins without knowing
    played, done, policy = Played(len(load.arrivals)), threading.Lock(), make()

    def note(future: Any, deadline: float, label: int) -> None:
        now = ladder.clock_ms()
        if future.cancelled() or future.exception() is not None or now > deadline:
            return
        with done:
            played.in_time += 1
            played.right += int(future.result().argmax()) == label

    with competitors(seconds, load.slow):
        start = ladder.clock_ms()
        answers = Watched(ladder, played, policy, start)
        clock = ladder.clock_ms
        with Stream(answers, policy, slo_ms=slo, max_queue=1024, clock=clock) as stream:
            for number, at in enumerate(load.arrivals):
                x, label = examples[number % len(examples)]
                while (left := start + at - clock()) > 0:
                    time.sleep(left / 1000)
                # The deadline goes by the arrival, not by when the generator came to it.
                deadline = start + at + slo
                future = stream.submit(x, slo_ms=deadline - clock())
                future.add_done_callback(lambda f, d=deadline, y=label: note(f, d, y))
    return played


def policies(ladder: Any, slo: float) -> dict[str, Callable[[], Policy]]:
    times = ladder.predictor.times
    rows: dict[str, Callable[[], Policy]] = {
        f"rung {rung}": lambda rung=rung: Fixed(times, rung)  # type: ignore[misc]
        for rung in range(len(ladder.names))
    }
    rows |= {
        "greedy": lambda: Greedy(times),
        "SlackFit": lambda: SlackFit(times),
        "ALERT": lambda: Alert(times),
        MODELSPEED: lambda: LookAhead(ladder.predictor, slo),
    }
    return rows


def oracle(
    ladder: Any, load: Load, slo: float, seen: Sequence[Played], right: Sequence[Sequence[bool]]
) -> Played:
    """The best plan, with the median slowdown of each second."""
    by_second: dict[int, list[float]] = {}
    for played in seen:
        for at, factor in played.slowdowns:
            by_second.setdefault(int(at / 1000), []).append(factor)
    factors = {second: median(rows) for second, rows in by_second.items()}
    whole = median(factors.values())
    plan = oracle_plan(
        ladder.predictor.times, load.arrivals, slo, lambda ms: factors.get(int(ms / 1000), whole)
    )
    found = Played(len(load.arrivals))
    for number, rung in enumerate(plan):
        if rung is not None:
            found.in_time += 1
            found.right += right[rung][number % len(right[rung])]
    return found


def examples_of(name: str) -> list[tuple[Tensor, int]]:
    data = {"digits": nets.digits, "sound": nets.mnist1d, "mobile": nets.clutter}[name]
    return [(x[None], int(y)) for xs, ys in data()[1] for x, y in zip(xs, ys, strict=True)]


def folder_of(name: str, runtime: str, minutes: float) -> Path:
    """The net's ladder, made first where it is missing."""
    checkpoint, factory, args, shape, data = NETS[name]
    folder = nets.TRAINED / f"{name}-{runtime}-ladder"
    if folder.exists():
        return folder
    if name != "digits":
        nets.checkpoint(name)
    nets.TRAINED.mkdir(exist_ok=True)
    recipe = nets.TRAINED / f"{name}-ladder.yaml"
    recipe.write_text(
        RECIPE.format(factory=factory, args=args, shape=shape, data=data, minutes=minutes)
    )
    command = [sys.executable, "-m", "modelspeed", "ladder", checkpoint, "--config", recipe,
               "--speedups", "1,2,4,8", "--runtime", runtime, "--threads", "1", "--out", folder,
               "--trust-code"]  # fmt: skip
    done = subprocess.run(list(map(str, command)), stdout=sys.stderr)
    if not folder.exists():
        raise SystemExit(f"`ladder` ended with {done.returncode}")
    return folder


def right_of(ladder: Any, examples: Sequence[tuple[Tensor, int]]) -> list[list[bool]]:
    """By rung and example."""
    with torch.no_grad():
        return [[int(rung(x).argmax()) == y for x, y in examples] for rung in ladder.rungs]


def capacity_of(ladder: Any) -> float:
    """Requests a second of the top rung at its best batch size."""
    times = ladder.predictor.times
    return max(1000.0 * size / times.median_ms(0, size) for size in times.rungs[0].sizes)


def table(name: str, folder: Path, seconds: float, only: str) -> Iterator[str]:
    ladder, record = modelspeed.load(folder), read_ladder(folder)
    examples = examples_of(name)
    right = right_of(ladder, examples)
    ladder.warm_up()
    top = ladder.predictor.times.median_ms(0, 1)
    slo, capacity = SLO * top, capacity_of(ladder)
    rungs = "; ".join(
        f"{i}: {ladder.predictor.times.median_ms(i, 1):.2f} ms, {100 * sum(r) / len(r):.2f} %"
        for i, r in enumerate(right)
    )
    yield f"### {folder.name}\n"
    yield f"Rungs (batch 1): {rungs}. SLO {slo:.1f} ms; the top rung bears {capacity:.0f}/s.\n"
    ways = policies(ladder, slo)
    yield "| load | requests | " + " | ".join(ways) + " | oracle | simulated |"
    yield "|---" * (len(ways) + 4) + "|"
    for load in loads(capacity, seconds):
        if only not in load.name:
            continue
        seen = {way: play(ladder, make, load, slo, examples, seconds)
                for way, make in ways.items()}  # fmt: skip
        best = oracle(ladder, load, slo, list(seen.values()), right)
        cells = [*map(str, seen.values()), str(best)]
        if load.slow:
            cells.append("")
        else:
            simulated = simulate_stream(rung_times_of(record), load.arrivals, slo)
            cells.append(f"{100 * simulated.attainment:.1f}, {100 * simulated.accuracy:.2f}")
        yield f"| {load.name} | {len(load.arrivals)} | " + " | ".join(cells) + " |"


def reaction(ladder: Any, examples: Sequence[tuple[Tensor, int]], runs: int = 10) -> str:
    """Late answers in a row at batch 1 after two busy processes start, worst of each run."""
    budget = 1.5 * ladder.predictor.times.median_ms(0, 1)
    worst = []
    for _ in range(runs):
        row = longest = 0
        busy: list[subprocess.Popen[bytes]] = []
        for number in range(400):
            if number == 200:
                busy = [subprocess.Popen([sys.executable, "-c", BUSY]) for _ in range(2)]
            began = ladder.clock_ms()
            ladder(examples[number % len(examples)][0], budget_ms=budget)
            row = row + 1 if ladder.clock_ms() - began > budget else 0
            longest = max(longest, row) if number >= 200 else 0
        for process in busy:
            process.kill()
            process.wait()
        worst.append(longest)
        time.sleep(0.5)
    return f"late in a row after a slowdown, {runs} runs: {sorted(worst)}"


def cascade(ladder: Any, examples: Sequence[tuple[Tensor, int]]) -> str:
    """Mean latency at equal accuracy, in turns with the rungs."""
    try:
        both = ladder.cascade()
    except modelspeed.core.errors.UsageError as error:
        return f"cascade: {error}"
    ways = [*ladder.rungs, both]
    taken, right = [0.0] * len(ways), [0] * len(ways)
    with torch.no_grad():
        for x, y in examples:
            for place, way in enumerate(ways):
                began = ladder.clock_ms()
                right[place] += int(way(x).argmax()) == y
                taken[place] += ladder.clock_ms() - began
    rows = [(t / len(examples), r / len(examples)) for t, r in zip(taken, right, strict=True)]
    mine, others = rows[-1], rows[:-1]
    equal = min((t for t, r in others if r >= mine[1]), default=others[0][0])
    listed = "; ".join(f"{t:.2f} ms {100 * r:.2f} %" for t, r in others)
    return (
        f"cascade {both.low} -> {both.high}: {mine[0]:.2f} ms at {100 * mine[1]:.2f} %; rungs: "
        f"{listed}; {equal / mine[0]:.2f}x the best single rung of equal accuracy"
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("nets", nargs="*", default=list(NETS))
    parser.add_argument("--runtime", default="lowered")
    parser.add_argument("--seconds", type=float, default=8.0, help="of each load")
    parser.add_argument("--minutes", type=float, default=4.0, help="of making a ladder")
    parser.add_argument("--loads", default="", help="those with this in their name")
    parser.add_argument("--skip-loads", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    for name in options.nets:
        folder = folder_of(name, options.runtime, options.minutes)
        if not options.skip_loads:
            for line in table(name, folder, options.seconds, options.loads):
                print(line, flush=True)
        ladder, examples = modelspeed.load(folder), examples_of(name)
        ladder.warm_up()
        print(f"\n{reaction(ladder, examples)}\n\n{cascade(ladder, examples)}\n", flush=True)
        print(json.dumps({"made in s": read_ladder(folder).seconds}), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
