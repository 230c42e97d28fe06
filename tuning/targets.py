"""Checks of the data's targets, made before any long work."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch.fx import GraphModule

from ..configs.layer_settings import Quantize
from ..configs.recipe import Recipe
from ..configs.settings import Compensate, Finetune, Prune
from ..core.errors import DataError
from ..data.load import Data
from ..graph.capture import clone
from ..profiling.accuracy import check_first
from ..profiling.losses import check_class_numbers, classes_of, outputs_of, task_loss


def check_targets(data: Data, original: GraphModule, recipe: Recipe, device: str) -> None:
    """The first batch of each part that this recipe uses; more targets of what it trains on.

    Raises DataError with the data's name, what was found and what is allowed.
    """
    assert recipe.data is not None
    model = clone(original)  # one that writes to its buffers would not be the original any more
    steps = [s.settings for s in recipe.adjust]
    part = "eval"
    try:
        check_first(model, data.on_the_way, data.metric, device)
        part = "train"
        if any(map(_trains, steps)):
            _check_loss(model, data.calibration, device)
        if any(map(_judged, steps)):
            check_first(model, data.held_out, data.metric, device)
    except DataError as error:
        raise DataError(f"`{recipe.data.factory}`: the {part} data: {error}") from error


def _trains(settings: Any) -> bool:
    """True if the step needs a loss from the targets."""
    if isinstance(settings, Finetune):
        return settings.epochs > 0
    if isinstance(settings, Quantize):
        return settings.finetune > 0
    return isinstance(settings, Prune) and settings.importance == "fisher"


def _judged(settings: Any) -> bool:
    """True if the metric on what judges decides about the step."""
    searched = isinstance(settings, Prune) and settings.is_open()
    return searched or isinstance(settings, (Compensate, Finetune)) or _trains(settings)


def _check_loss(model: GraphModule, batches: Iterable[Any], device: str) -> None:
    """That there is a loss of the first batch; of others the class numbers are looked at."""
    classes: int | None = None
    for index, (inputs, targets) in enumerate(batches):
        if index and classes is not None:
            check_class_numbers(targets, classes)
        if index:
            continue
        with torch.no_grad():
            outputs = outputs_of(model, inputs, device)
        loss = task_loss(outputs, targets.to(device))
        if targets.is_floating_point():
            if not bool(torch.isfinite(targets).all()):
                raise DataError("the targets hold NaN or infinity.")
        else:
            classes = classes_of(outputs, targets)
        if not bool(torch.isfinite(loss)):
            raise DataError("the loss of the original is not finite (NaN or infinity).")
