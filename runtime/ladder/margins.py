"""Margins between classes, and the threshold under which an answer is worth a second look."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ...core.errors import UsageError
from ...core.ladder_record import CascadeRecord

SURE = 1.645  # standard errors of a one-sided bound at 95 %


def margins_of(logits: Tensor) -> Tensor:
    """By row: the probability of the most likely class less that of the second."""
    top = torch.softmax(logits.detach().float(), dim=1).topk(2, dim=1).values
    return top[:, 0] - top[:, 1]


def calibrate(
    low: int,
    high: int,
    low_logits: Tensor,
    high_logits: Tensor,
    labels: Tensor,
    *,
    max_drop: float = 0.0,
    sure: float = SURE,
) -> CascadeRecord:
    """The cascade of rungs `low` and `high` that sends up as few answers as may be.

    With 95 % confidence (`sure` standard errors) its accuracy is at most `max_drop` below that of
    `high` alone. The examples must be held out from training: logits [examples, classes] of both
    rungs, labels [examples]. Raises UsageError for others.
    """
    _check(low_logits, high_logits, labels)
    if not 0.0 <= max_drop <= 1.0:
        raise UsageError(f"`max_drop` is {max_drop}; it must be between 0 and 1.")
    order = margins_of(low_logits).argsort(stable=True)
    margins = margins_of(low_logits)[order]
    right_low = (low_logits.argmax(1) == labels)[order].double()
    right_high = (high_logits.argmax(1) == labels)[order].double()
    shares = _share_up(right_low, right_high, max_drop, sure)
    count = _untied(margins, shares)
    total = len(labels)
    right = float(right_high[:count].sum() + right_low[count:].sum())
    threshold = float(margins[count]) if count < total else 2.0  # every margin is below that
    return CascadeRecord(low, high, threshold, max_drop, right / total, count / total, total)


def _share_up(right_low: Tensor, right_high: Tensor, max_drop: float, sure: float) -> int:
    """The fewest of the least sure answers that must go up.

    Where k go up, high and cascade differ in the others only: the mean of `high right - low right`
    over all examples, plus `sure` standard errors of it, may be `max_drop`.
    """
    total = len(right_low)
    lost = right_high - right_low
    # Sums over those that stay: position k holds the sum from k on.
    sums = torch.cat([lost.flip(0).cumsum(0).flip(0), lost.new_zeros(1)])
    squares = torch.cat([(lost * lost).flip(0).cumsum(0).flip(0), lost.new_zeros(1)])
    means = sums / total
    errors = ((squares / total - means * means).clamp(min=0) / total).sqrt()
    fits = (means + sure * errors <= max_drop + 1e-12).nonzero().flatten()
    return int(fits[0])  # all of them going up always fits


def _untied(margins: Tensor, count: int) -> int:
    """More, if that many would part examples of the same margin."""
    while 0 < count < len(margins) and margins[count] == margins[count - 1]:
        count += 1
    return count


def _check(low: Tensor, high: Tensor, labels: Tensor) -> None:
    if low.dim() != 2 or low.shape[1] < 2 or low.shape != high.shape:
        raise UsageError(
            f"a cascade is calibrated on logits of [examples, classes] of both rungs; found "
            f"{list(low.shape)} and {list(high.shape)}."
        )
    if labels.shape != (len(low),) or not len(labels):
        raise UsageError(f"`labels` has the shape {list(labels.shape)}; it must be [{len(low)}].")
    if not all(math.isfinite(float(x.float().abs().max())) for x in (low, high)):
        raise UsageError("the logits hold values that are not finite.")
