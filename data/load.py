"""The user's data: train and eval iterables of (inputs, targets), and the metric."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence, Sized
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from ..configs.recipe import METRICS, DataSpec, InputSpec, Recipe
from ..configs.references import DATA, FILE, HUB, parse_reference
from ..core.errors import DataError
from ..core.json_values import JsonObject
from ..core.model_io import AnyInputs, Batches, Inputs
from ..core.user_code import load_factory
from ..profiling.accuracy import AnyMetric, evaluate
from ..profiling.side_by_side import agreement
from .arrays import array_loaders
from .held_out import hold_out
from .hugging_face import dataset_loaders
from .image_folder import classes_in, image_loaders
from .loaders import lay_out
from .metrics import library_metric

CALIBRATION = 256  # examples


def several(batches: Batches) -> Iterator[tuple[AnyInputs, Tensor]]:
    """Batches without a last one of a single example: it has no variance for a batch norm."""
    first = 0
    for inputs, targets in batches:
        first = first or len(targets)
        if len(targets) > 1 or first == 1:
            yield inputs, targets


def count_of(batches: Batches) -> int:
    """Number of batches that `several` gives; data that knows its length is not read for it."""
    if isinstance(batches, (list, tuple)) or not isinstance(batches, Sized):
        return sum(1 for _ in several(batches))
    return len(batches)


@dataclass(frozen=True)
class Data:
    """`held_out` is a part of the training data that decides what is kept (data/held_out.py).

    `calibration`: the same few training examples for everything that is fitted in closed form, so
    that candidates differ by what they are. `classes`: how many `folder:DIR` has, 0 elsewhere.
    `train_batches`: how many `train` gives in a pass.
    """

    train: Batches
    held_out: Batches
    calibration: Batches
    eval: Batches
    metric: AnyMetric
    metric_name: str
    classes: int = 0
    train_batches: int = 0

    def accuracy(self, module: nn.Module, device: str) -> tuple[float, int]:
        """Metric (higher is better) and number of examples on the evaluation data."""
        return evaluate(module, self.eval, self.metric, device)

    def held_out_score(self, module: nn.Module, device: str) -> float:
        """The metric on held-out training data, for decisions along the way."""
        return evaluate(module, self.held_out, self.metric, device)[0]


def load_data(recipe: Recipe, takes: Sequence[JsonObject] = ()) -> Data | None:
    """The data that `data.factory` returns, checked. Raises DataError naming what was found
    instead.

    `takes`: the model's inputs (shape, name, batch), which stand where the recipe has none.
    """
    if recipe.data is None:
        return None
    name = recipe.data.factory
    try:
        pair = _returned(recipe.data, recipe, takes)
    except (OSError, ValueError, TypeError) as error:
        raise DataError(f"`{name}` failed: {error}") from error
    if not isinstance(pair, tuple) or len(pair) != 2:
        kind = f"{type(pair).__name__} of {len(pair)}" if isinstance(pair, tuple) else type(pair)
        raise DataError(f"`{name}` must return (train, eval); it returned {kind}.")
    for part, batches in zip(("train", "eval"), pair, strict=True):
        _first(batches, f"`{name}`: the {part} data")
    metric: AnyMetric = recipe.data.metric
    if isinstance(metric, str) and metric not in METRICS:
        metric = library_metric(metric) or load_factory(metric, Path(recipe.base))
    parts = hold_out(pair[0])
    for part, batches in (("training", parts.train), ("held-out", parts.held_out)):
        _first(batches, f"`{name}`: the {part} part of the train data")
    shown = _some(parts.train, CALIBRATION)
    classes = classes_in(pair[1])
    return Data(
        parts.train, parts.held_out, shown, pair[1], metric, recipe.data.metric, classes,
        parts.batches,
    )  # fmt: skip


def _returned(spec: DataSpec, recipe: Recipe, takes: Sequence[JsonObject]) -> object:
    """The data behind the name: data on disk or the hub, or what a function of the user's
    returns."""
    reference = parse_reference(spec.factory, DATA)
    if reference is None or reference.kind == FILE:
        return load_factory(spec.factory, recipe.base)()
    path = reference.path(recipe.base)
    inputs = recipe.inputs or tuple(
        InputSpec.model_construct(shape=tuple(t["shape"]), name=t.get("name")) for t in takes
    )
    if reference.kind == HUB or path is None:
        pair = dataset_loaders(spec, path or reference.place, inputs)
    elif reference.kind == "folder":
        pair = image_loaders(spec, path, inputs)
    else:
        pair = array_loaders(spec, path)
    for loader in pair:
        lay_out(loader, takes)
    return pair


def _some(batches: Batches, examples: int) -> list[tuple[AnyInputs, Tensor]]:
    taken, count = [], 0
    for inputs, targets in several(batches):
        taken.append((inputs, targets))
        count += len(targets)
        if count >= examples:
            break
    return taken


def _first(batches: Iterable[object], where: str) -> None:
    try:
        iterator = iter(batches)
    except TypeError as error:
        raise DataError(f"{where} is {type(batches).__name__}; it must be iterable.") from error
    batch = next(iterator, None)
    if batch is None:
        raise DataError(f"{where} is empty.")
    if iterator is batches:
        raise DataError(f"{where} can be read only once; return a list or a DataLoader.")
    if not isinstance(batch, (tuple, list)) or len(batch) != 2:
        raise DataError(f"{where} must yield (inputs, targets); it yields {type(batch).__name__}.")
    if isinstance(batch[1], Tensor) and not batch[1].dim():
        raise DataError(f"{where} has a target without a shape; it must have one row per example.")
    parts = [*Inputs.of(batch[0]), batch[1]]
    strange = next((p for p in parts if not isinstance(p, Tensor)), None)
    if strange is not None or len(parts) < 2:
        kind = type(strange).__name__ if strange is not None else "no inputs"
        raise DataError(
            f"{where} must yield (inputs, targets), the inputs a tensor, a tuple of tensors or "
            f"tensors by keyword; it yields {kind}."
        )


__all__ = ["Data", "agreement", "load_data"]
