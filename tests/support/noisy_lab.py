"""A whole run on a disturbed machine, with a simulated clock: what ships, and was it right?

The search, the choice and the measuring rules are the tool's own; models, machine and training are
arithmetic. A slow phase hits variants unequally, as busy cores do: one that slows the original
by f slows a variant by f ** sensitivity.
"""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from typing import ClassVar

import numpy as np
from fake_lab import FakeLab, exactly
from modelspeed.configs.recipe import Prefer, Recipe
from modelspeed.core.records import Closeness, Comparison, Latency, Target, Verification
from modelspeed.profiling.patience import Waiting
from modelspeed.profiling.quiet import quiet_ms
from modelspeed.profiling.statistics import verdict, widened
from modelspeed.profiling.undisturbed import undisturbed
from modelspeed.search import contenders as trials
from modelspeed.search.choice import Contender, Preference, Standing, finish_best
from modelspeed.search.decision import Decision
from modelspeed.search.knapsack import Allocation, Problem
from modelspeed.search.lab import HeldOut
from modelspeed.search.meet_target import explore
from modelspeed.search.search import Search
from modelspeed.search.target import budget_ms, share_of_target
from modelspeed.search.variant import Variant
from modelspeed.tuning.baseline import Baseline
from torch import nn
from weather import Weather

WIDTHS = tuple(range(4, 52, 4))
INT8 = 2  # the recipe's step
ORIGINAL_MS, FIXED_MS = 10.0, 0.5
LOSSLESS = Decision({})
# A slow phase that makes the original f times as slow makes a variant f ** s times as slow.
ALIKE, UNLIKE = (0.95, 1.05), (0.6, 1.02)


Table = tuple[list[dict[str, int]], np.ndarray, np.ndarray]


class Enumerated(Problem):
    """A knapsack so small that looking at everything is faster than a solver."""

    tables: ClassVar[dict[object, Table]] = {}

    @property
    def _all(self) -> Table:
        losses = tuple(choice.losses for choice in self.choices.values())
        key = (losses, tuple(sorted(self.barred.items())), self.terms[0].ms.tobytes())
        if key not in self.tables:
            options = [self.open(name) for name in self.choices]
            picks = itertools.product(*options)
            rows = [dict(zip(self.choices, row, strict=True)) for row in picks]
            self.tables[key] = (
                rows, np.array([self.ms(r) for r in rows]), np.array([self.loss(r) for r in rows]),
            )  # fmt: skip
        return self.tables[key]

    def fastest(self) -> dict[str, int]:
        rows, ms, loss = self._all
        return rows[int((ms + 1e-6 * loss).argmin())]

    def solve(self, budget: float) -> Allocation | None:  # type: ignore[override]
        rows, ms, loss = self._all
        fits = ms <= budget + 1e-9
        if not fits.any():
            return None
        at = int(np.where(fits, loss + 1e-9 * ms, np.inf).argmin())
        return Allocation(rows[at], float(ms[at]), float(loss[at]), 0.0)


class Module(nn.Module):
    """Stands for the graph of a decision; a copy is itself, since nothing changes it."""

    def __init__(self, decision: Decision) -> None:
        super().__init__()
        self.decision = decision

    def __deepcopy__(self, memo: object) -> Module:
        return self


@dataclass
class NoisyLab(FakeLab):
    """`seconds_allowed`: the run's limit. `failures`: the share of builds and processes that fail.

    `noise`: of a median, relative; `training`: the share of a drop that remains after it.
    """

    weather: Weather = field(default_factory=lambda: Weather((0.0,), (1.0,)))
    chance: random.Random = field(default_factory=random.Random)
    seconds_allowed: float = 600.0
    failures: float = 0.0
    noise: float = 0.005
    training: float = 0.5
    now: float = 0.0
    least: float = math.inf
    medians: list[float] = field(default_factory=list)
    sensitivities: tuple[float, float] = ALIKE
    biases: dict[str, float] = field(default_factory=dict)

    @property
    def reference(self) -> Latency:
        return exactly(self.medians[0])

    @property
    def quiet_ms(self) -> float:
        return quiet_ms(self.medians)

    @property
    def waiting(self) -> Waiting:
        return Waiting(lambda: self.now, self.spend)

    def spend(self, seconds: float) -> None:
        self.now += seconds

    def in_time(self, seconds: float | None = None) -> bool:
        return self.now < 0.5 * self.seconds_allowed

    def time_for_another(self) -> bool:
        return self.now + 90.0 < self.seconds_allowed

    def open(self) -> None:
        """The baseline: three runs, the fastest is the reference."""
        rows = sorted(self._original(1.5) for _ in range(3))
        self.medians = rows

    def build(self, decision: Decision, *, recover: bool = False) -> Variant:
        self.spend(1.0)
        self._may_fail()
        return Variant(Module(decision))  # type: ignore[arg-type]

    def held_out(self, variant: Variant | None) -> HeldOut:
        self.spend(4.0)
        loss = 0.0 if variant is None else self.of(variant.module.decision)[1]  # type: ignore[arg-type]
        return HeldOut(1.0 - loss + self.chance.gauss(0, 0.001) * bool(loss), loss)

    def latency(
        self, variant: Variant, runtimes: tuple[str, ...] = (), attempts: int = 2
    ) -> tuple[Latency, str]:
        decision: Decision = variant.module.decision  # type: ignore[assignment]
        rows = undisturbed(
            lambda: self._pair(decision, 2.0),
            self.quiet_ms,
            attempts=attempts,
            waiting=self.waiting,
        ).rows
        ratio = rows[0].value_ms / rows[1].value_ms
        known = Baseline(self.reference, self.medians)
        return known.scaled(rows[0], rows[1], ratio, ratio / 1.005, 1.005 * ratio), self.runtime

    def verify(self, variant: Variant) -> Verification:
        self.spend(5.0)
        self._may_fail()
        return self._verified(variant.module.decision)  # type: ignore[arg-type]

    def true_ms(self, decision: Decision) -> float:
        return self.of(decision)[0]

    def finish(self, contender: Contender[Decision]) -> Done:
        """Trained, written and verified."""
        self.spend(45.0 if contender.source.dropped else 5.0)
        self._may_fail()
        checked = self._verified(
            contender.source, max(60.0, 0.4 * (self.seconds_allowed - self.now))
        )
        share, drop = share_of_target(self.target, checked), self.true_drop(contender.source)
        if checked.disturbed:
            share = min(share, contender.standing.share)
        drop = 0.0 if contender.exact else drop + self.chance.gauss(0, 0.0005)
        usable = checked.comparison.finding != "slower"
        return Done(contender.source, checked, Standing(share, drop, drop, usable))

    def true_drop(self, decision: Decision) -> float:
        return self.training * self.of(decision)[1]

    def _may_fail(self) -> None:
        if self.chance.random() < self.failures:
            raise RuntimeError("it fails")

    def _verified(self, decision: Decision, patience: float = 0.0) -> Verification:
        more = {"attempts": 100, "seconds": patience} if patience else {}
        timed = undisturbed(
            lambda: self._pair(decision, 10.0, fresh=True), self.quiet_ms, waiting=self.waiting,
            **more,  # type: ignore[arg-type]
        )  # fmt: skip
        before, after = timed.rows
        self.medians.append(before.value_ms)
        gain = before.value_ms / after.value_ms
        low, high = gain * 0.99, gain * 1.01
        finding = "faster" if low > 1 else ("slower" if high < 1 else "no significant change")
        ratio = Comparison(gain, low, high, finding)  # type: ignore[arg-type]
        quiet = min(self.quiet_ms, before.value_ms)
        if timed.disturbed:
            ratio = widened(ratio, before.value_ms / quiet)
        return Verification(before, after, ratio, Closeness(0.0, 1e-3, (1,)), None, quiet,
                            timed.disturbed)  # fmt: skip

    def _original(self, seconds: float) -> float:
        slow = self._slowdown(seconds)
        self.spend(seconds)
        return ORIGINAL_MS * slow * self._jitter()

    def _pair(self, decision: Decision, seconds: float, fresh: bool = False) -> list[Latency]:
        slow = self._slowdown(2 * seconds)
        self.spend(2 * seconds)
        before, true = ORIGINAL_MS * slow * self._jitter(), self.true_ms(decision)
        after = true * slow ** self.sensitivity(decision) * self._jitter()
        if not fresh:
            self.medians.append(before)
        return [exactly(before), exactly(after)]

    def _slowdown(self, seconds: float) -> float:
        slow = self.weather.median(self.now, seconds)
        self.least = min(self.least, slow)
        return slow

    def sensitivity(self, decision: Decision) -> float:
        name = repr([*sorted(map(str, decision.dropped.items())), len(decision.taken)])
        if name not in self.biases:
            self.biases[name] = self.chance.uniform(*self.sensitivities)
        return self.biases[name]

    def _jitter(self) -> float:
        return math.exp(self.chance.gauss(0, self.noise))


@dataclass(frozen=True)
class Done:
    decision: Decision
    checked: Verification
    standing: Standing


@dataclass(frozen=True)
class Shipped:
    """`share` of the target and `drop` as they truly are, and the verdict that the user reads.

    `quiet`: the slowdown of the quietest phase that the run has measured in, where it is true.
    """

    share: float
    drop: float
    verdict: str
    lossless_share: float
    quiet: float
    seconds: float


NETS, TARGETS = 10, (0.25, 0.33, 0.4, 0.5, 0.6, 0.75, 0.9)  # of the original's time
EDGES = (0.99, 1.005, 1.03)  # of lossless work's: whether that is enough is hard to tell
JOBS = NETS * (len(TARGETS) + len(EDGES))  # after which they repeat


@cache
def net(number: int) -> tuple[dict[str, dict[int, float]], dict[str, dict[int, float]]]:
    """Times and losses of a net: lossless work alone gains a fifth to a third."""
    chance = random.Random(number)
    gain, share = chance.uniform(0.65, 0.8), chance.uniform(0.35, 0.65)
    times, losses = {}, {}
    for name, part in (("a", share), ("b", 1 - share)):
        whole = (gain * ORIGINAL_MS - FIXED_MS) * part
        times[name] = {w: whole * (0.1 + 0.9 * w / WIDTHS[-1]) for w in WIDTHS}
        steep = chance.uniform(1.5, 3.0)
        losses[name] = {w: 0.2 * (1 - w / WIDTHS[-1]) ** steep for w in WIDTHS}
    return times, losses


def lab_of(recipe: Recipe, job: int, weather: Weather, seed: int, **more: object) -> NoisyLab:
    """A net and a target by the number of the job, on a machine."""
    times, losses = net(job % NETS)
    whole = FIXED_MS + sum(max(table.values()) for table in times.values())
    ms = [*(ORIGINAL_MS * share for share in TARGETS), *(whole * share for share in EDGES)]
    target = Target(ms=ms[job // NETS % len(ms)])
    layers = {"conv": ("a", INT8, 0.6, 0.004), "mix": ("b", INT8, 0.6, 0.006)}
    return NoisyLab(
        recipe, times, losses, layers=layers, fixed_ms=FIXED_MS, target=target,
        weather=weather, chance=random.Random(seed), **more,  # type: ignore[arg-type]
    )  # fmt: skip


def run(lab: NoisyLab, prefer: Prefer = "target") -> Shipped:
    """The run of `tune` from the baseline to what ships (tuning/contest.py, conclusion.py)."""
    lab.open()
    search: Search | None = None
    free, _ = lab.latency(Variant(Module(LOSSLESS)), attempts=4)  # type: ignore[arg-type]
    finished: dict[str, Done] = {}
    failed: set[str] = set()

    def contenders() -> Sequence[Contender[Decision]]:
        nonlocal search
        done = finished.get(trials.LOSSLESS)
        share = free.high_ms / budget_ms(lab.target, lab.reference, lab.quiet_ms)
        lossless = done.standing if done else Standing(share)
        rows = [Contender(trials.LOSSLESS, lossless, LOSSLESS, exact=True)]
        if lossless.share <= 1.0 and search is None and trials.LOSSLESS not in failed:
            return rows
        if search is None:
            search = _opened(lab, free)
            if done is not None:
                search.trials[0].share = done.standing.share
                search.trials[0].quiet_ms = done.checked.reference_ms
        explore(search)
        known = (c for c in trials.contenders(search) if c.label != trials.LOSSLESS)
        return [*rows, *(replace(c, source=search.decision(c.source)) for c in known)]

    def finish(contender: Contender[Decision]) -> Done:
        failed.add(contender.label)
        finished[contender.label] = lab.finish(contender)
        failed.discard(contender.label)
        return finished[contender.label]

    preference = Preference(lab.recipe.limits.max_drop, prefer)
    best = finish_best(contenders, finish, preference, lab.time_for_another)
    reads = verdict(lab.target, best.checked.judged, best.checked.comparison)
    drop = 0.0 if best.decision is LOSSLESS else lab.true_drop(best.decision)
    shares = (
        lab.true_ms(d) * lab.least ** lab.sensitivity(d) / lab.target.ms  # type: ignore[operator]
        for d in (best.decision, LOSSLESS)
    )
    share, lossless = shares
    return Shipped(share, drop, reads, lossless, lab.least, lab.now)


def _opened(lab: NoisyLab, free: Latency) -> Search:
    space = lab.space()
    problem = space.problem
    small = Enumerated(problem.choices, problem.terms, problem.fixed_ms)
    search = Search(lab, replace(space, problem=small))
    whole = small.whole()
    search.trials.append(trials.Trial(whole, small.ms(whole), 0.0, free, lab.runtime))
    search.steps = tuple(sorted({step for _, step, *_ in lab.layers.values()}))
    return search
