"""Two models on the same batches: metric of both, how often they agree, how far they are apart."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..core.errors import DataError
from .accuracy import (
    AnyMetric,
    Forward,
    Score,
    batches_of,
    evaluate,
    in_eval_mode,
    outputs_on,
    pair_of,
    split_batch,
)
from .paired import drop_interval, whole_interval


def agreement(a: Forward, b: Forward, batches: Iterable[Any], device: str = "cpu") -> float:
    """Agreement of `b` with `a`: the fraction of equal argmax where outputs are [batch, classes].

    Elsewhere 1 - |b - a| / |a| (Euclidean, at least 0). A batch is (inputs, targets), targets
    unused and allowed to be None, or the input tensor alone.
    """
    same = Agreement()
    with torch.inference_mode(), in_eval_mode(a), in_eval_mode(b):
        for index, batch in enumerate(batches_of(batches)):
            inputs = batch if isinstance(batch, Tensor) else pair_of(batch, index)[0]
            left = outputs_on(a, inputs, index, device)
            same.add(left, outputs_on(b, inputs, index, device), index)
    return same.result()


def are_class_scores(outputs: Tensor) -> bool:
    return outputs.dim() == 2 and outputs.shape[1] > 1


class Agreement:
    """Agreement of outputs with others, over batches as they come."""

    def __init__(self) -> None:
        self._equal, self._rows, self._error, self._size = 0.0, 0, 0.0, 0.0
        self._classes = False

    def add(self, left: Tensor, right: Tensor, index: int) -> None:
        if left.shape != right.shape:
            raise DataError(
                f"Batch {index}: the outputs to compare have the shapes {list(left.shape)} "
                f"and {list(right.shape)}; they must be the same."
            )
        self._classes = are_class_scores(left)
        if self._classes:
            self._equal += float((left.argmax(1) == right.argmax(1)).sum())
        self._rows += left.shape[0] if left.dim() else 1
        self._error += float((right.double() - left.double()).square().sum())
        self._size += float(left.double().square().sum())

    def result(self) -> float:
        if not self._rows:
            raise DataError("The data to compare two models on is empty: no example was found.")
        if self._classes:
            return self._equal / self._rows
        if not self._size:
            return float(self._error == 0.0)
        return max(0.0, 1.0 - math.sqrt(self._error / self._size))


class Divergence:
    """Distance of outputs from others, without steps: mean KL(left || right) of class scores.

    Elsewhere |right - left|^2 / |left|^2. It tells candidates apart that a metric on few examples
    can't.
    """

    def __init__(self) -> None:
        self._total, self._size, self._rows = 0.0, 0.0, 0
        self._classes = False

    def add(self, left: Tensor, right: Tensor) -> None:
        left, right = left.double(), right.double()
        self._classes = are_class_scores(left)
        self._rows += left.shape[0]
        self._size += float(left.square().sum())
        if self._classes:
            wanted, actual = left.log_softmax(1), right.log_softmax(1)
            apart = wanted.exp() * (wanted - actual)
            # A class that is masked has no share in the mean.
            self._total += float(apart.masked_fill(wanted == -math.inf, 0.0).sum())
        else:
            self._total += float((right - left).square().sum())

    def result(self) -> float:
        found = self._total / (max(1, self._rows) if self._classes else max(self._size, 1e-30))
        # Scores of which some are infinite; NaN would compare as neither near nor far.
        return math.inf if math.isnan(found) else found


class SideBySide(NamedTuple):
    """The metric of two models on the same `examples`, and the 95 % interval of its drop."""

    before: float
    after: float
    agreement: float
    examples: int
    interval: tuple[float, float] | None = None


Rows = Sequence[tuple[float, int]]


def interval_of(
    values: tuple[Tensor, Tensor], rows: tuple[Rows, Rows]
) -> tuple[float, float] | None:
    """Of the drop between two models: by example where the metric has values of each, else by the
    batches that both have."""
    if len(values[0]) and len(values[1]):
        return drop_interval(values[0].numpy(), values[1].numpy())
    counts = [[count for _, count in row] for row in rows]
    if counts[0] != counts[1]:
        return None
    before, after = ([value for value, _ in row] for row in rows)
    return drop_interval(before, after, counts[0])


def interval_of_whole(before: Score, after: Score, examples: int) -> tuple[float, float] | None:
    """The same of a metric of the whole, where both have seen, and kept, all of the examples."""
    first, second = before.seen, after.seen
    if first is None or second is None or {len(first[1]), len(second[1])} != {examples}:
        return None

    def drop(places: Any) -> float:
        rows = torch.from_numpy(places).to(first[0].device)
        one, other = (score.again(*(x[rows] for x in pair)) for score, pair in pairs)
        return one - other

    pairs = ((before, first), (after, second))
    return whole_interval(drop, len(first[1]))


def judge(
    original: Forward, final: Forward, batches: Iterable[Any], metric: AnyMetric, device: str
) -> SideBySide:
    """Metric of both, and agreement of `final` with `original`.

    One pass, unless the metric is an object that sees one module at a time and can't be copied.
    """
    other = another(metric)
    if other is None:
        before, count = evaluate(original, batches, metric, device)
        after, _ = evaluate(final, batches, metric, device)
        return SideBySide(before, after, agreement(original, final, batches, device), count)
    first, second, same = Score(metric), Score(other), Agreement()

    def add(left: Tensor, right: Tensor, targets: Tensor, index: int) -> None:
        first.add(left, targets, index)
        second.add(right, targets, index)
        same.add(left, right, index)

    _both(original, final, batches, device, add)
    figures = (first.result(), second.result(), same.result(), first.count)
    interval = interval_of((first.each, second.each), (first.rows, second.rows))
    return SideBySide(*figures, interval or interval_of_whole(first, second, first.count))


def divergence(a: Forward, b: Forward, batches: Iterable[Any], device: str = "cpu") -> float:
    """Divergence of `b` from `a` on these batches."""
    total = Divergence()
    with torch.inference_mode(), in_eval_mode(a), in_eval_mode(b):
        for index, batch in enumerate(batches_of(batches)):
            inputs = pair_of(batch, index)[0]
            total.add(outputs_on(a, inputs, index, device), outputs_on(b, inputs, index, device))
    return total.result()


def _both(
    original: Forward,
    final: Forward,
    batches: Iterable[Any],
    device: str,
    add: Callable[[Tensor, Tensor, Tensor, int], None],
) -> None:
    with torch.inference_mode(), in_eval_mode(original), in_eval_mode(final):
        for index, batch in enumerate(batches_of(batches)):
            inputs, targets = split_batch(batch, index)
            left = outputs_on(original, inputs, index, device)
            right = outputs_on(final, inputs, index, device)
            add(left, right, targets.to(device), index)


def another(metric: AnyMetric) -> AnyMetric | None:
    """The metric for a second module: a `Whole` keeps what it saw. None where it is not copied."""
    if isinstance(metric, str) or callable(metric):
        return metric
    try:
        return copy.deepcopy(metric)
    except Exception:  # an object of the user's that holds what can't be copied
        return None
