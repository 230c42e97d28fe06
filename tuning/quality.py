"""Accuracy of the loaded artifact beside the original's, or agreement alone without data."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

from torch import nn

from ..checkpoints.samples import draw_inputs, specs_of
from ..core.model_io import Batches, Inputs
from ..core.records import Quality
from ..data.load import Data
from ..data.subset import FirstBatches, examples_in, in_random_order
from ..profiling.gate import working
from ..profiling.side_by_side import SideBySide, agreement, judge

DRAWN, FEWEST_DRAWN, DRAWN_SECONDS = 64, 8, 1.5
Half = Literal["judge", "report"]


@dataclass(frozen=True)
class EvaluationPart:
    """The part of the data that is read: so many examples (0: all), as far as they are read within
    `seconds`. At random, where the data can be divided.

    `half`: of data in halves, the one that judges or the one that reports; `total`: how many it
    has, where that was counted before.
    """

    examples: int = 0
    seconds: float = math.inf
    half: Half = "report"
    total: int = 0

    def of(self, data: Data, seed: int) -> tuple[Batches, int]:
        """Its batches, and how many examples there are in all, 0 where that is unknown."""
        batches = data.reported if self.half == "report" else data.on_the_way
        ordered, clock = in_random_order(batches, seed), working
        limit = self.examples or math.inf
        batches = FirstBatches(ordered.batches, limit, clock() + self.seconds, clock)
        return batches, ordered.total or self.total


ALL = EvaluationPart()


def _drawn(inputs: Inputs, seed: int, drawn: list[Inputs]) -> Iterator[tuple[Inputs, None]]:
    """Random inputs, which `drawn` takes: they tell little, so that a slow model gets fewer."""
    specs, end = specs_of(inputs), working() + DRAWN_SECONDS
    while len(drawn) < DRAWN and (len(drawn) < FEWEST_DRAWN or working() < end):
        drawn.append(draw_inputs(specs, seed + len(drawn)))
        yield drawn[-1], None


def quality_of(
    original: nn.Module,
    final: nn.Module,
    inputs: Inputs,
    data: Data | None,
    device: str,
    seed: int,
    judged: Callable[..., SideBySide] = judge,
    part: EvaluationPart = ALL,
) -> Quality:
    """On `part` of the evaluation data, by `judged`; random inputs stand in for data that is not
    there."""
    if data is None:
        drawn = list[Inputs]()
        same = agreement(original, final, _drawn(inputs, seed, drawn), device)
        return Quality("agreement", False, agreement=same, examples=len(drawn))
    batches, total = part.of(data, seed)
    if not data.is_labeled:
        counted = Counted(batches)
        same = agreement(original, final, counted, device)
        return Quality("agreement", False, agreement=same, examples=counted.examples)
    both = judged(original, final, batches, data.metric, device)
    low, high = both.interval or (None, None)
    halved = data.halves is not None and part.half == "report"
    return Quality(
        data.metric_name, True, both.before, both.after, both.agreement, both.examples,
        max(total, both.examples), low, high, halved,
    )  # fmt: skip


@dataclass
class Counted:
    """Batches, of which the examples are counted in passing."""

    batches: Batches
    examples: int = 0

    def __iter__(self) -> Iterator[object]:
        for batch in self.batches:
            self.examples += examples_in(batch)
            yield batch
