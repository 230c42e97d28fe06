"""Rungs of known latencies on a clock that only they move."""

from __future__ import annotations

import random
from typing import Any

import torch
from modelspeed.runtime.ladder.ladder import Ladder
from modelspeed.runtime.ladder.times import RungTimes
from torch import Tensor, nn

# Medians in ms at batch 1; a batch of n takes that times (1 + GROWTH (n - 1)).
MEDIANS = (8.0, 4.0, 2.0, 1.0)
SCORES = (0.95, 0.93, 0.90, 0.80)
GROWTH = 0.3
SIZES = (1, 2, 4, 8, 16)
NOISE = 0.02


def median_of(rung: int, batch: int, medians: tuple[float, ...] = MEDIANS) -> float:
    return medians[rung] * (1 + GROWTH * (batch - 1))


def samples(median: float, noise: float = NOISE, count: int = 200, seed: int = 0) -> list[float]:
    draw = random.Random(f"{seed} {median}")
    return [median * draw.lognormvariate(0, noise) for _ in range(count)]


def rung_times(
    medians: tuple[float, ...] = MEDIANS,
    scores: tuple[float, ...] = SCORES,
    noise: float = NOISE,
    only_sizes: bool = False,
) -> list[RungTimes]:
    return [
        RungTimes(
            f"{rung}-fake",
            score,
            {b: samples(median_of(rung, b, medians), noise) for b in SIZES},
            only_sizes,
        )
        for rung, score in enumerate(scores)
    ]


class FakeClock:
    """Time in ms, which `pass_ms` alone moves."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def pass_ms(self, ms: float) -> None:
        self.now += ms


class FakeRung(nn.Module):
    """Logits for three classes, after a time that depends on the batch and on `slowdown`."""

    def __init__(self, rung: int, clock: FakeClock, noise: float = NOISE, seed: int = 0) -> None:
        super().__init__()
        self.rung, self.clock, self.noise = rung, clock, noise
        self.slowdown, self.calls = 1.0, []
        self.draw = random.Random(seed)

    def forward(self, x: Tensor) -> Tensor:
        self.calls.append(len(x))
        if (x == BAD).any():
            raise ValueError("a bad input")
        spread = self.draw.lognormvariate(0, self.noise)
        self.clock.pass_ms(median_of(self.rung, len(x)) * self.slowdown * spread)
        return torch.stack([x[:, 0], -x[:, 0], torch.full_like(x[:, 0], float(self.rung))], 1)


BAD = 666.0


def fake_ladder(answers: int = 30, **other: Any) -> tuple[Ladder, FakeClock]:
    """A ladder of four fake rungs that has given some answers, and the clock they move."""
    clock = FakeClock()
    rungs = [FakeRung(rung, clock, seed=rung) for rung in range(len(MEDIANS))]
    ladder = Ladder(rungs, rung_times(), clock=clock, **other)
    for _ in range(answers):
        ladder(torch.zeros(1, 1))
    for rung in rungs:
        rung.calls.clear()
    return ladder, clock


def slow_down(ladder: Ladder, factor: float) -> None:
    for rung in ladder.rungs:
        rung.slowdown = factor
