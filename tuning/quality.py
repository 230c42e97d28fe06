"""Accuracy of the loaded artifact beside the original's, or agreement alone without data."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from torch import nn

from ..checkpoints.samples import draw_inputs, specs_of
from ..core.model_io import Batches, Inputs
from ..core.records import Quality
from ..data.load import Data
from ..data.subset import FirstBatches, in_random_order
from ..profiling.gate import working
from ..profiling.side_by_side import agreement, judge

DRAWN, FEWEST_DRAWN, DRAWN_SECONDS = 64, 8, 1.5


@dataclass(frozen=True)
class EvaluationPart:
    """The part of the evaluation data that has the last word: so many examples (0: all), as far as
    they are read within `seconds`. At random, where the data can be divided."""

    examples: int = 0
    seconds: float = math.inf

    def of(self, batches: Batches, seed: int) -> tuple[Batches, int]:
        """Its batches, and how many examples there are in all, 0 where that is unknown."""
        ordered, clock = in_random_order(batches, seed), working
        limit = self.examples or math.inf
        return FirstBatches(
            ordered.batches, limit, clock() + self.seconds, clock
        ), ordered.total or 0


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
    judged: Callable[..., tuple[float, float, float, int]] = judge,
    part: EvaluationPart = ALL,
) -> Quality:
    """On `part` of the evaluation data, by `judged`; random inputs stand in for data that is not
    there."""
    if data is None:
        drawn = list[Inputs]()
        same = agreement(original, final, _drawn(inputs, seed, drawn), device)
        return Quality("agreement", False, agreement=same, examples=len(drawn))
    batches, total = part.of(data.eval, seed)
    before, after, same, count = judged(original, final, batches, data.metric, device)
    return Quality(data.metric_name, True, before, after, same, count, max(total, count))
