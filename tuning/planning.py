"""The facts a time plan is made of: the cost of an evaluation, timed, and the work to come."""

from __future__ import annotations

from torch import nn

from ..adjusters.registry import ADJUSTERS
from ..configs.layer_settings import Quantize
from ..configs.recipe import Recipe, Step
from ..configs.settings import Finetune
from ..data.load import Data
from ..data.subset import examples_in, in_random_order
from ..profiling.accuracy import evaluate
from ..profiling.gate import working
from .schedule import Work

TIMED_BATCHES = 4
TIMED_SECONDS = 2.0  # after which no further batch is begun
TRAINING = 4.0  # times the original's forward: teacher and student, and the way back


def costs_of(data: Data, original: nn.Module, device: str, seed: int) -> dict[str, float]:
    """Seconds of reading an example and of running the original on it, and of an optimizer step.

    The first batch warms up what comes after it, where there is another one.
    """
    begun = at = working()
    rows: list[tuple[float, float]] = []
    for batch in in_random_order(data.on_the_way, seed).batches:
        count, read = examples_in(batch), working() - at
        if count:
            started = working()
            # A metric of the whole may say nothing about one batch; its cost is that of the model.
            evaluate(original, [batch], _none, device)
            rows.append((read / count, (working() - started) / count))
        at = working()
        if len(rows) >= TIMED_BATCHES or at - begun > TIMED_SECONDS:
            break
    warm = rows[1:] or rows
    reading, forward = (min(row[i] for row in warm) for i in (0, 1)) if warm else (0.0, 0.0)
    size = examples_in(next(iter(data.calibration), None))
    return {
        "reading": reading, "forward": forward, "step": size * (reading + TRAINING * forward),
    }  # fmt: skip


def _none(outputs: object, targets: object) -> float:
    return 0.0


def work_of(
    data: Data | None, recipe: Recipe, searches: bool, trains: bool, share: float = 1.0
) -> Work:
    """`trains`: the recipe's steps that cost accuracy are run, and those that win it back."""
    steps = [s for s in recipe.adjust if trains and not ADJUSTERS[s.name].lossless]
    if data is None:
        return Work(searches=searches)
    halves = data.halves
    if halves is None:
        judging, total = 0, in_random_order(data.reported, 0).total or 0
    else:
        judging, total = halves.counts or (0, 0)
    epochs = sum(map(_epochs, steps))
    training = round(epochs * data.train_batches)
    return Work(
        total, len(steps), training, searches, True, share, halves is not None, judging
    )  # fmt: skip


def _epochs(step: Step) -> float:
    settings = step.settings
    if isinstance(settings, Finetune):
        return settings.epochs
    return settings.finetune if isinstance(settings, Quantize) else 0.0
