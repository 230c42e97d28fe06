"""A cascade: a low rung answers, and a high one again where the low one is unsure.

The margin, the most likely class's probability less the second's, is compared with a threshold that
was calibrated on examples with labels (`margins.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from ...core.errors import UsageError
from ...core.ladder_record import CascadeRecord
from ...core.model_io import primary
from .counts import Counts
from .margins import margins_of
from .predictor import CONFIDENCE, Predictor, check_confidence


class Rungs(Protocol):
    """A ladder, as its cascades see it."""

    predictor: Predictor
    counts: Counts
    names: tuple[str, ...]

    def run(self, rung: int, batch: int, args: Sequence[Any], kwargs: Any) -> tuple[Any, Any]: ...

    def clock_ms(self) -> float: ...


@dataclass(frozen=True)
class HowCascaded:
    """`unsure` of `answers` had a margin under the threshold; `went_up` of them were given by the
    high rung: all, or none where the budget did not allow it. `taken_ms` of both rungs together."""

    answers: int
    unsure: int
    went_up: int
    taken_ms: float


class Cascade:
    """Called like its ladder; `low` and `high` are places of rungs, 0 the top."""

    def __init__(self, ladder: Rungs, low: int, high: int, threshold: float) -> None:
        self._ladder, self.low, self.high, self.threshold = ladder, low, high, threshold

    def __call__(
        self,
        *args: Any,
        budget_ms: float | None = None,
        confidence: float = CONFIDENCE,
        **kwargs: Any,
    ) -> Any:
        return self.answer(*args, budget_ms=budget_ms, confidence=confidence, **kwargs)[0]

    def answer(
        self,
        *args: Any,
        budget_ms: float | None = None,
        confidence: float = CONFIDENCE,
        **kwargs: Any,
    ) -> tuple[Any, HowCascaded]:
        """The answer, and how many of its rows went up.

        Those go up that are unsure, together, if the high rung answers within the rest of
        `budget_ms` with probability `confidence`. Raises UsageError for outputs that are not
        logits of classes.
        """
        check_confidence(confidence)
        began = self._ladder.clock_ms()
        logits, outputs, how = self._low(args, kwargs)
        unsure = (~(margins_of(logits) >= self.threshold)).nonzero().flatten()  # NaN is unsure
        count, more_ms, up = len(logits), 0.0, len(unsure)
        if up and budget_ms is not None:
            left = budget_ms - (self._ladder.clock_ms() - began)
            if not self._ladder.predictor.fits(self.high, left, up, confidence):
                up = 0
        if up:
            outputs, more = self._up(outputs, unsure, count, args, kwargs)
            more_ms = more.taken_ms
        late = budget_ms is not None and self._ladder.clock_ms() - began > budget_ms
        counts, kept = self._ladder.counts, count - up
        counts.answered(self.low, how.taken_ms, kept, kept * late, how.slowdown)
        counts.cascaded(count, self.high, up, more_ms, up * late)
        return outputs, HowCascaded(count, len(unsure), up, how.taken_ms + more_ms)

    def _low(self, args: Sequence[Any], kwargs: dict[str, Any]) -> tuple[Tensor, Any, Any]:
        batch = next((x.shape[0] for x in (*args, *kwargs.values()) if _has_rows(x)), 1)
        outputs, how = self._ladder.run(self.low, batch, args, kwargs)
        logits = primary(outputs)
        if not _are_logits(logits, batch):
            raise UsageError(
                "a cascade goes by the margin between classes, and this model's output is not a "
                "table of logits with two classes or more; use `ladder(x, budget_ms=...)`."
            )
        return logits, outputs, how

    def _up(
        self, outputs: Any, unsure: Tensor, count: int, args: Sequence[Any], kwargs: dict[str, Any]
    ) -> tuple[Any, Any]:
        """The outputs with the high rung's in the rows `unsure`."""
        size = self._ladder.predictor.times.rungs[self.high].run_size(len(unsure))
        rows = torch.cat([unsure, unsure[-1:].expand(size - len(unsure))])

        def chosen(x: Any) -> Any:
            return x[rows] if _has_rows(x) and x.shape[0] == count else x

        picked = {name: chosen(value) for name, value in kwargs.items()}
        better, how = self._ladder.run(self.high, size, [chosen(x) for x in args], picked)
        if len(unsure) == count:
            return _first(better, count, size), how
        low, spec = pytree.tree_flatten(outputs)
        high, _ = pytree.tree_flatten(better)
        merged = [_merged(a, b, unsure, count) for a, b in zip(low, high, strict=True)]
        return pytree.tree_unflatten(merged, spec), how


def cascade_of(
    ladder: Rungs,
    calibrated: Sequence[CascadeRecord],
    low: int | None,
    high: int | None,
    threshold: float | None,
) -> Cascade:
    """The cascade of these rungs, or the calibrated one with the smallest share that goes up."""
    if threshold is not None and low is not None and high is not None:
        last = len(ladder.names) - 1
        if not (0 <= low <= last and 0 <= high <= last) or low == high:
            raise UsageError(f"`low={low}` and `high={high}` must be two of the rungs 0 to {last}.")
        return Cascade(ladder, low, high, threshold)
    fits = [
        row
        for row in calibrated
        if (low is None or row.low == low) and (high is None or row.high == high)
    ]
    if threshold is not None or not fits:
        raise UsageError(
            "the ladder has no calibrated cascade of these rungs; give `low`, `high` and "
            "`threshold`, which `calibrate` finds from logits and labels."
        )
    found = min(fits, key=lambda row: row.share)
    return Cascade(ladder, found.low, found.high, found.threshold)


def _has_rows(value: Any) -> bool:
    return isinstance(value, Tensor) and value.dim() > 0


def _are_logits(value: Any, batch: int) -> bool:
    return (
        isinstance(value, Tensor)
        and value.is_floating_point()
        and value.dim() == 2
        and value.shape[0] == batch
        and value.shape[1] >= 2
    )


def _first(outputs: Any, count: int, size: int) -> Any:
    def cut(x: Any) -> Any:
        return x[:count] if _has_rows(x) and x.shape[0] == size else x

    return outputs if count == size else pytree.tree_map(cut, outputs)


def _merged(low: Any, high: Any, rows: Tensor, count: int) -> Any:
    if not _has_rows(low) or low.shape[0] != count:
        return low
    return low.index_copy(0, rows, high[: len(rows)].to(low.dtype))
