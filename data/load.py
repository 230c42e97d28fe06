"""The user's data: train and eval iterables of (inputs, targets), and the metric."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence, Sized
from dataclasses import dataclass, replace
from pathlib import Path

from torch import Tensor, nn
from torch.fx import GraphModule
from torch.utils.data import DataLoader

from ..configs.recipe import METRICS, AugmentSpec, DataSpec, InputSpec, Recipe
from ..configs.references import DATA, FILE, HUB, parse_reference
from ..core.errors import DataError
from ..core.json_values import JsonObject
from ..core.model_io import AnyInputs, Batches, Inputs
from ..core.user_code import load_factory
from ..graph.capture import has_dynamic_batch
from ..profiling.accuracy import AnyMetric, evaluate
from ..profiling.side_by_side import agreement, divergence
from .answers import Answered, agreed
from .arrays import array_loaders
from .halves import FEWEST, Halves, checked_halves
from .held_out import MOST, batches_in, hold_out
from .hugging_face import dataset_loaders
from .image_folder import classes_in, image_loaders
from .loaders import lay_out
from .metrics import library_metric
from .perturbed import Perturbed
from .subset import FirstBatches, in_random_order, is_divisible

CALIBRATION = 256  # examples
BY_ANSWERS = (
    "nearness to the original's answers on held-out training examples, changed a little, since "
    "there is no evaluation data"
)


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
    """`held_out` decides what is kept: examples that judge, or a part of the training data.

    `halves` of the evaluation data `eval`; None where all of it decides and reports. `eval` itself
    is None where there is none: then outputs are judged by how near they come to the original's.
    `remark`: what decides, in words. `calibration`: the same few training examples for everything
    that is fitted in closed form, so that candidates differ by what they are. `classes`: how many
    `folder:DIR` has, 0 elsewhere. `train_batches`: how many `train` gives in a pass.
    """

    train: Batches
    held_out: Batches
    calibration: Batches
    eval: Batches | None
    metric: AnyMetric
    metric_name: str
    classes: int = 0
    train_batches: int = 0
    halves: Halves | None = None
    remark: str = ""
    augment: AugmentSpec | None = None

    @property
    def on_the_way(self) -> Batches:
        """The examples that may be read before the end, to see what a step costs."""
        if self.halves is not None:
            return self.halves.judge
        return self.held_out if self.eval is None else self.eval

    @property
    def reported(self) -> Batches:
        """The examples of the last word; in halves nothing else reads them."""
        if self.halves is not None:
            return self.halves.report
        return self.held_out if self.eval is None else self.eval

    @property
    def is_labeled(self) -> bool:
        """False where only the original's own answers can be asked for."""
        return self.eval is not None

    def accuracy(self, module: nn.Module, device: str) -> tuple[float, int]:
        """Metric (higher is better) and number of examples on the evaluation data that reports."""
        return evaluate(module, self.reported, self.metric, device)

    def held_out_score(self, module: nn.Module, device: str) -> float:
        """The metric on the examples that judge, for decisions along the way."""
        return evaluate(module, self.held_out, self.metric, device)[0]

    def rank(self, module: nn.Module, original: nn.Module, device: str) -> float:
        """The figure of which more is better where two variants are compared."""
        if self.is_labeled:
            return self.held_out_score(module, device)
        return -divergence(original, module, self.held_out, device)

    def ranked(self, figure: float) -> str:
        """A figure of `rank` in words."""
        return f"{figure:.4f}" if self.is_labeled else f"divergence {-figure:.4f}"

    def fitting(self, graph: GraphModule, inputs: Inputs | None = None) -> Data:
        """The same for a model that takes one batch size alone: its halves are whole batches, and
        so are those of batches that lie along another axis than the first, and can't be cut there.
        """
        cut = inputs is None or isinstance(self.eval, DataLoader) or _rows_first(inputs)
        if self.halves is None or (cut and has_dynamic_batch(graph, inputs)):
            return self
        few = self.halves.counts is not None and min(self.halves.counts) < FEWEST
        least = 1 if few else FEWEST  # fewer only where the recipe asks for it
        halves = checked_halves(self.halves.batches, self.halves.seed, least, whole=True)
        if isinstance(halves, str):
            return self._by_training(halves)
        return replace(self, halves=halves, held_out=_judging(halves), remark=_by_half(halves))

    def counted(self, seconds: float) -> Data:
        """With the sizes of both halves, where nothing but a short pass tells them."""
        if self.halves is None:
            return self
        halves = self.halves.within(seconds)
        if halves.counts is not None and not min(halves.counts):
            return self._by_training(halves.objection(1))
        return replace(self, halves=halves, remark=_by_half(halves))

    def _by_training(self, reason: str) -> Data:
        """Judged by held-out training data after all."""
        parts = hold_out(self.train)
        return replace(
            self, train=parts.train, held_out=parts.held_out, train_batches=parts.batches,
            calibration=_some(parts.train, CALIBRATION), halves=None, remark=_by_train(reason),
        )  # fmt: skip

    def answered_by(self, original: nn.Module, device: str, seed: int) -> Data:
        """Without evaluation data: held-out training examples, changed a little, with the
        original's answers."""
        if self.is_labeled:
            return self
        changed = Answered(Perturbed(self.held_out, self.augment, seed), original, device)
        return replace(self, held_out=changed, metric=agreed, metric_name="agreement")


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
    train, evaluation = pair
    _first(train, f"`{name}`: the train data")
    metric: AnyMetric = recipe.data.metric
    if isinstance(metric, str) and metric not in METRICS:
        metric = library_metric(metric) or load_factory(metric, Path(recipe.base))
    made = _divided(recipe.data, train, evaluation, metric)
    for part, batches in (("training", made.train), ("held-out", made.held_out)):
        _first(batches, f"`{name}`: the {part} part of the data")
    return made


def _divided(spec: DataSpec, train: Batches, evaluation: Batches | None, metric: AnyMetric) -> Data:
    """The data, with what decides and what reports."""
    name = spec.factory
    halves: Halves | str = "`data.judge` is `train`"
    # Of a half that reports nothing is read yet.
    unread = evaluation is not None and is_divisible(evaluation)
    if evaluation is not None and not unread:
        _first(evaluation, f"`{name}`: the eval data")
    if evaluation is not None and spec.judge != "train":
        least = FEWEST if spec.judge == "auto" else 1
        halves = checked_halves(evaluation, spec.judge_seed, least)
    if spec.judge == "half" and not isinstance(halves, Halves):
        reason = "there is no evaluation data" if evaluation is None else halves
        raise DataError(f"`{name}`: `data.judge` is `half`, but {reason}.")
    if isinstance(halves, Halves):
        held_out, remark, batches = _judging(halves), _by_half(halves), batches_in(train)
    else:
        if evaluation is not None and unread:
            _first(evaluation, f"`{name}`: the eval data")
        parts = hold_out(train)
        train, held_out, batches = parts.train, parts.held_out, parts.batches
        remark = BY_ANSWERS if evaluation is None else _by_train(halves)
    return Data(
        train, held_out, _some(train, CALIBRATION), evaluation, metric, spec.metric,
        classes_in(evaluation), batches, halves if isinstance(halves, Halves) else None, remark,
        spec.augment,
    )  # fmt: skip


def _judging(halves: Halves) -> Batches:
    return FirstBatches(in_random_order(halves.judge, halves.seed).batches, MOST)


def _rows_first(inputs: Inputs) -> bool:
    """True if each input has its examples along the first axis."""
    return all(axis == 0 for x, axis in zip(inputs, inputs.axes, strict=True) if x.dim())


def _by_half(halves: Halves) -> str:
    text = "half of the evaluation data, which the report never reads"
    if halves.counts is not None:
        judge, report = halves.counts
        text = f"{judge:,} of {judge + report:,} evaluation examples; the report reads the others"
    if count := halves.single_classes:
        few = "a class has" if count == 1 else f"{count:,} classes have"
        text += f". {few.capitalize()} a single example, so one half lacks it"
    return text


def _by_train(reason: str) -> str:
    return f"held-out training data and, for steps, all evaluation data, since {reason}"


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
