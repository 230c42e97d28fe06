"""The evaluation data in two halves: one judges on the way, the other one only reports.

A half is the same in every process of a run and in later runs: it depends on the data and the
recipe's seed alone.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence, Sized
from dataclasses import dataclass, replace
from functools import cached_property
from random import Random
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from ..core.errors import DataError
from ..core.model_io import AnyInputs, Batches, Inputs
from ..profiling.accuracy import split_batch
from ..profiling.gate import working
from .labels import labels_of
from .subset import FirstBatches, example_indices, examples_in, part_of, permutation

FEWEST = 200  # examples of a half that judges


class Sides:
    """The half of each example, as they come: of every two of a class in a row one judges, drawn.

    An example whose label nobody knows is of the same class as all others.
    """

    def __init__(self, seed: int) -> None:
        self._random = Random(seed)
        self._open: dict[int | None, bool] = {}

    def judges(self, label: int | None = None) -> bool:
        if label in self._open:
            return not self._open.pop(label)
        self._open[label] = bool(self._random.getrandbits(1))
        return self._open[label]


@dataclass(frozen=True)
class HalfOf:
    """The examples of one half out of batches that nobody can divide: others are dropped.

    `whole`: batches are kept as they are, for a model of a fixed batch size.
    """

    batches: Batches
    judge: bool
    seed: int
    whole: bool = False

    def __iter__(self) -> Iterator[tuple[AnyInputs, Tensor]]:
        for (inputs, targets), own in self.divided():
            if len(own) == len(targets):
                yield inputs, targets
            elif own:
                yield _rows_of(Inputs.of(inputs), targets, own)

    def divided(self) -> Iterator[tuple[tuple[AnyInputs, Tensor], list[int]]]:
        """Each batch with the places of this half's examples."""
        sides = Sides(self.seed)
        for index, batch in enumerate(self.batches):
            inputs, targets = split_batch(batch, index)
            if self.whole or not _has_rows(Inputs.of(inputs), len(targets)):
                taken = len(targets) > 0 and sides.judges() is self.judge
                yield (inputs, targets), list(range(len(targets) if taken else 0))
                continue
            rows = enumerate(_labels(targets))
            yield (inputs, targets), [i for i, t in rows if sides.judges(t) is self.judge]


def _has_rows(inputs: Inputs, count: int) -> bool:
    """True if every input has a row for each example."""
    return all(isinstance(x, Tensor) and (not x.dim() or len(x) == count) for x in inputs)


def _rows_of(inputs: Inputs, targets: Tensor, own: list[int]) -> tuple[Inputs, Tensor]:
    rows = torch.tensor(own)
    return inputs.map(lambda x: x[rows.to(x.device)] if x.dim() else x), targets[rows]


def _labels(targets: Tensor) -> Sequence[int | None]:
    if targets.dim() == 1 and not targets.is_floating_point():
        labels: list[int | None] = targets.tolist()
        return labels
    return [None] * len(targets)


@dataclass(frozen=True)
class Halves:
    """`batches`: all of the evaluation data. What a DataLoader has of one half is read without
    the other half.

    `whole`: in whole batches, for a model of a fixed batch size. `passed`: the counts of both
    halves where a pass over data that does not tell has found them.
    """

    batches: Batches
    seed: int
    whole: bool = False
    passed: tuple[int, int] | None = None

    @cached_property
    def judge(self) -> Batches:
        return self._half(True)

    @cached_property
    def report(self) -> Batches:
        return self._half(False)

    @cached_property
    def counts(self) -> tuple[int, int] | None:
        """Examples that judge and that report; None where only a pass tells."""
        if self._sides is not None:
            return self._sides.count(True), self._sides.count(False)
        if not isinstance(self.batches, (list, tuple)):
            return self.passed
        return self._counted(math.inf)

    def within(self, seconds: float) -> Halves:
        """With the counts of both, where a pass takes no longer."""
        if self.counts is not None:
            return self
        return replace(self, passed=self._counted(working() + seconds))

    def _counted(self, deadline: float) -> tuple[int, int] | None:
        judge = report = 0
        part = HalfOf(self.batches, True, self.seed, self.whole)
        for (_, targets), own in part.divided():
            judge, report = judge + len(own), report + len(targets) - len(own)
            if working() > deadline:
                return None
        return judge, report

    @cached_property
    def single_classes(self) -> int:
        """Classes of which one half has no example, as far as their labels are known."""
        return sum(count == 1 for count in Counter(self._known_labels or ()).values())

    def objection(self, least: int) -> str:
        """The reason that there are not `least` examples in each half; empty if there are."""
        drops = isinstance(self.batches, DataLoader) and self.batches.drop_last
        size = (self.batches.batch_size or 1) if isinstance(self.batches, DataLoader) else 1
        if self.counts is None:
            return self._objection_to_stream(least)
        fewest = min(self.counts) // size * size if drops else min(self.counts)
        if not fewest:
            unit = "batch" if drops or self.whole else "example"
            return f"the evaluation data has no {unit} for each half"
        return _too_few(min(self.counts), least) if fewest < least else ""

    def _objection_to_stream(self, least: int) -> str:
        first, again = (next(iter(self.batches), None) for _ in range(2))
        if first is None or again is None or not _equal(first, again):
            return "the evaluation data gives other examples in each pass"
        length = _length(self.batches)
        count = (length - 1) * examples_in(first)
        if count < 2 * least:
            count = sum(map(examples_in, FirstBatches(self.batches, 2 * least)))
        return _too_few(count // 2, least) if count < 2 * least else ""

    @cached_property
    def _indices(self) -> list[int] | None:
        loader = self.batches
        return example_indices(loader) if isinstance(loader, DataLoader) else None

    @cached_property
    def _known_labels(self) -> list[int] | None:
        if self._indices is None or not isinstance(self.batches, DataLoader):
            return None
        return labels_of(self.batches.dataset, self._indices)

    @cached_property
    def _sides(self) -> list[bool] | None:
        """Of each example of a DataLoader that can be divided, True for those that judge."""
        if self._indices is None or not isinstance(self.batches, DataLoader):
            return None
        sides, unknown = Sides(self.seed), [None] * len(self._indices)
        labels: Sequence[int | None] = self._known_labels or unknown
        rows = [sides.judges(label) for label in labels]
        judging = [i for i, judges in enumerate(rows) if judges]
        over = len(judging) % (self.batches.batch_size or 1) if self.whole else 0
        for place in permutation(len(judging), self.seed)[:over]:
            rows[judging[place]] = False
        return rows

    def _half(self, judge: bool) -> Batches:
        if self._sides is not None and self._indices is not None:
            pairs = zip(self._indices, self._sides, strict=True)
            assert isinstance(self.batches, DataLoader)
            return part_of(self.batches, [i for i, judges in pairs if judges is judge])
        part = HalfOf(self.batches, judge, self.seed, self.whole)
        return list(part) if isinstance(self.batches, (list, tuple)) else part


def _length(batches: Batches) -> int:
    """0 where nobody knows, as a DataLoader over iterable data does not."""
    try:
        return len(batches) if isinstance(batches, Sized) else 0
    except TypeError:
        return 0


def _too_few(count: int, least: int) -> str:
    held = f"{count:,} example{'s' * (count != 1)}"
    return f"half of the evaluation data is {held}, and it takes {least:,} to judge"


def _equal(first: Any, second: Any) -> bool:
    (inputs, targets), (others, more) = (split_batch(b, 0) for b in (first, second))
    left, right = (*Inputs.of(inputs), targets), (*Inputs.of(others), more)
    pairs = zip(left, right, strict=False)
    return len(left) == len(right) and all(
        a.shape == b.shape and bool(torch.equal(a, b)) for a, b in pairs
    )


def checked_halves(batches: Batches, seed: int, least: int, whole: bool = False) -> Halves | str:
    """Two halves of `least` examples each, or the reason that there are none."""
    try:
        halves = Halves(batches, seed, whole)
        return halves.objection(least) or halves
    except DataError as error:  # the check of the whole names it better
        return str(error)
