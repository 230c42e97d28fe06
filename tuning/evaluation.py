"""Data as a run's decisions see it: small parts of it, each model run on each batch at most once.

The half of the evaluation data that reports is read by the fresh process alone.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from ..core.model_io import Batches
from ..data.load import Data
from ..data.subset import FirstBatches, Pinned, examples_in, in_random_order
from ..profiling.accuracy import AnyMetric, Score, evaluate, in_eval_mode, outputs_on, split_batch
from ..profiling.sequential import SequentialDrop
from ..profiling.side_by_side import Divergence
from ..search.lab import HeldOut

ERRORS = ("mse", "mae")  # of any size: no one example changes them by a known step
FEWEST = 128  # examples that decide about a candidate, where the time allows it
OUTPUT_BYTES = 256 << 20  # of the original's outputs that are kept; beyond it they are made again


@dataclass(frozen=True)
class Drop:
    """The metric of two models on the same `examples`; `above`: it falls by more than asked."""

    before: float
    after: float
    examples: int
    above: bool

    @property
    def where(self) -> str:
        return f"on {self.examples:,} examples"


@dataclass
class EvaluationSample:
    """Some of the evaluation data that decides, at random where it can be divided; what each model
    got there.

    `whole`: the metric says nothing about a single batch.
    """

    batches: Batches
    metric: AnyMetric
    step: float
    device: str
    _known: WeakKeyDictionary[nn.Module, list[tuple[float, int]]] = field(
        default_factory=WeakKeyDictionary
    )

    @property
    def whole(self) -> bool:
        return not (isinstance(self.metric, str) or callable(self.metric))

    def drop(
        self, before: nn.Module, after: nn.Module, limit: float, deadline: float = float("inf")
    ) -> Drop | None:
        """Of as many batches as it takes to tell whether `limit` is broken, all of them at most.

        None where a metric of the whole says nothing about the sample.
        """
        if self.whole:
            return self._of_all(before, after, limit)
        test = SequentialDrop(limit, self.step)
        rows = [self._known.setdefault(m, []) for m in (before, after)]
        sums, examples = [0.0, 0.0], 0
        for index, batch in enumerate(FirstBatches(self.batches, deadline=deadline)):
            if not examples_in(batch):
                continue
            for place, module in enumerate((before, after)):
                value, count = self._score(rows[place], module, index, batch)
                sums[place] += value * count
            examples += count
            test.add(rows[0][index][0] - rows[1][index][0], count)
            if test.above is not None:
                break
        first, second = (total / max(1, examples) for total in sums)
        above = test.above if test.above is not None else first - second > limit + 1e-9
        return Drop(first, second, examples, above)

    def _score(
        self, row: list[tuple[float, int]], module: nn.Module, index: int, batch: Any
    ) -> tuple[float, int]:
        while len(row) < index:  # an empty batch
            row.append((0.0, 0))
        if index == len(row):
            row.append(evaluate(module, [batch], self.metric, self.device))
        return row[index]

    def _of_all(self, before: nn.Module, after: nn.Module, limit: float) -> Drop | None:
        for module in (before, after):
            if module not in self._known:
                found, count = whole_score(module, self.batches, self.metric, self.device)
                self._known[module] = [] if found is None else [(found, count)]
        rows = [*self._known[before], *self._known[after]]
        if len(rows) < 2:
            return None
        (first, count), (second, _) = rows
        return Drop(first, second, count, first - second > limit + 1e-9)


def whole_score(
    module: nn.Module, batches: Batches, metric: AnyMetric, device: str
) -> tuple[float | None, int]:
    """A metric over a sample, and its examples; None where it is not defined there.

    So is the area under a curve on examples of one class. What the model itself fails with is
    raised.
    """
    score = Score(metric)
    with torch.inference_mode(), in_eval_mode(module):
        for index, batch in enumerate(batches):
            inputs, targets = split_batch(batch, index)
            score.add(outputs_on(module, inputs, index, device), targets.to(device), index)
    try:
        return score.result(), score.count
    except Exception:  # of a library or the user, each of which says it in its own way
        return None, score.count


@dataclass
class HeldOutSample:
    """Examples on which candidates are scored, with what the original gives there.

    The original's outputs are kept where the batches are, to which they belong.
    """

    batches: Pinned
    metric: AnyMetric
    device: str
    original: nn.Module
    _outputs: list[Tensor] = field(default_factory=list)
    _bytes: int = 0
    _score: float | None = None

    def score(self, module: nn.Module | None) -> HeldOut:
        """Metric and divergence in one pass; of the original for None."""
        if module is None:
            if self._score is None:
                self._score = self._pass(self.original).score
            return HeldOut(self._score, 0.0)
        return self._pass(module)

    def _pass(self, module: nn.Module) -> HeldOut:
        score, apart = Score(self.metric), Divergence()
        with torch.inference_mode(), in_eval_mode(module), in_eval_mode(self.original):
            for index, batch in enumerate(self.batches):
                inputs, targets = split_batch(batch, index)
                left = self._of_original(inputs, index)
                right = left if module is self.original else outputs_on(
                    module, inputs, index, self.device
                )  # fmt: skip
                score.add(right, targets.to(self.device), index)
                apart.add(left, right)
        return HeldOut(score.result(), apart.result())

    def _of_original(self, inputs: Any, index: int) -> Tensor:
        if index < len(self._outputs):
            return self._outputs[index].to(self.device)
        outputs = outputs_on(self.original, inputs, index, self.device)
        follows = self.batches.kept is not None and index == len(self._outputs)
        if follows and self._bytes < OUTPUT_BYTES:
            self._outputs.append(outputs.cpu())
            self._bytes += outputs.nbytes
        return outputs


@dataclass(frozen=True)
class Evaluation:
    """The two samples that decide, of the sizes that the time plan allows."""

    on_the_way: EvaluationSample
    held_out: HeldOutSample

    @classmethod
    def of(
        cls,
        data: Data,
        original: nn.Module,
        device: str,
        seed: int,
        decided_on: int,
        scored_on: int,
    ) -> Evaluation:
        """Of so many examples of what may be read on the way, and of what scores candidates."""
        judged, ordered = data.held_out, in_random_order(data.on_the_way, seed).batches
        if data.halves is not None:  # both samples are of the same half: it is read once
            judged = ordered = Pinned(ordered, max(decided_on, scored_on), FEWEST)
        step = 0.0 if isinstance(data.metric, str) and data.metric in ERRORS else 1.0
        sample = EvaluationSample(Pinned(ordered, decided_on), data.metric, step, device)
        held_out = Pinned(judged, scored_on, min(scored_on, FEWEST))
        if sample.whole and whole_score(original, held_out, data.metric, device)[0] is None:
            # More of it may say something.
            everything = data.held_out if data.halves is None else data.halves.judge
            held_out = Pinned(everything, sys.maxsize, FEWEST)
        return cls(sample, HeldOutSample(held_out, data.metric, device, original))
