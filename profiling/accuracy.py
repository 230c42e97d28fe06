"""Accuracy of a module on the user's data; higher is better for every metric."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol, TypeAlias

import torch
from torch import Tensor, nn

from ..core.errors import DataError
from ..core.model_io import Inputs, primary
from .metrics import Metric, each_of, metric_of
from .state import kept_state


class Whole(Protocol):
    """A metric that is not a mean over batches, such as F1: it sees them all first."""

    def reset(self) -> None: ...
    def add(self, outputs: Tensor, targets: Tensor) -> None: ...
    def result(self) -> float: ...


SEEN_BYTES = 64 << 20  # of outputs and targets, to draw from
AnyMetric: TypeAlias = str | Metric | Whole
Forward = Callable[..., Any]


def evaluate(
    module: Forward, batches: Iterable[Any], metric: AnyMetric, device: str = "cpu"
) -> tuple[float, int]:
    """Mean of `metric` over all examples, and their number.

    `accuracy` (top-1) and `top5` are fractions; `mse` and `mae` come back **negated**, so that
    higher is better everywhere. A callable takes (outputs, targets) of one batch and returns its
    mean; a `Whole` sees all batches first. Batches are (inputs, targets); inputs are a tensor, a
    tuple of tensors or tensors by keyword; of several outputs `logits` or the first counts. Raises
    DataError for unusable data, naming the batch.
    """
    score = Score(metric)
    with torch.inference_mode(), in_eval_mode(module):
        for index, batch in enumerate(batches_of(batches)):
            inputs, targets = split_batch(batch, index)
            score.add(outputs_on(module, inputs, index, device), targets.to(device), index)
    return score.result(), score.count


def check_first(
    module: Forward, batches: Iterable[Any], metric: AnyMetric, device: str = "cpu"
) -> None:
    """That the metric takes the first batch. Raises DataError as `evaluate` would."""
    for batch in batches_of(batches):
        inputs, targets = split_batch(batch, 0)
        with torch.inference_mode(), in_eval_mode(module):
            outputs = outputs_on(module, inputs, 0, device)
        targets = targets.to(device)
        _check_rows(outputs, targets, 0)
        # A metric of the whole, such as F1, may say nothing about one batch.
        if isinstance(metric, str) or callable(metric):
            _number(metric_of(metric)(outputs, targets), 0)
        return


class Score:
    """A metric over batches as they come.

    `rows`: value and examples of each, where the metric is a mean over them.
    """

    def __init__(self, metric: AnyMetric) -> None:
        self._whole = None if isinstance(metric, str) or callable(metric) else metric
        self._metric = metric_of(metric) if self._whole is None else None  # type: ignore[arg-type]
        self._each = each_of(metric) if isinstance(metric, str) else None
        self.rows: list[tuple[float, int]] = []
        self._values: list[Tensor] = []
        self.count, self._last = 0, 0
        self._seen: list[tuple[Tensor, Tensor]] = []
        self._bytes = 0
        if self._whole is not None:
            self._whole.reset()

    def add(self, outputs: Tensor, targets: Tensor, index: int) -> None:
        """Of batch number `index`, which errors name."""
        _check_rows(outputs, targets, index)
        if not len(targets):
            return
        if self._whole is not None:
            self._whole.add(outputs, targets)
            self._keep(outputs, targets)
        elif self._each is not None:
            values = self._each(outputs, targets)
            self.rows.append((_number(values.mean(), index), len(targets)))
            self._values.append(values.float().cpu())
        elif self._metric is not None:
            value = _number(self._metric(outputs, targets), index)
            self.rows.append((value, len(targets)))
        self.count += len(targets)
        self._last = index

    def _keep(self, outputs: Tensor, targets: Tensor) -> None:
        self._bytes += outputs.nbytes + targets.nbytes
        if self._bytes > SEEN_BYTES:
            self._seen.clear()
        else:
            self._seen.append((outputs, targets))

    @property
    def seen(self) -> tuple[Tensor, Tensor] | None:
        """Outputs and targets that a metric of the whole saw, while they are few enough to keep."""
        if not self._seen or self._bytes > SEEN_BYTES:
            return None
        outputs, targets = zip(*self._seen, strict=True)
        return torch.cat(outputs), torch.cat(targets)

    def again(self, outputs: Tensor, targets: Tensor) -> float:
        """A metric of the whole on other examples; what it saw before is forgotten."""
        assert self._whole is not None
        self._whole.reset()
        self._whole.add(outputs, targets)
        return float(self._whole.result())

    @property
    def each(self) -> Tensor:
        """Values of each example, where the metric is known by name; else none."""
        return torch.cat([torch.empty(0), *self._values])

    def result(self) -> float:
        if not self.count:
            raise DataError("The `eval` data is empty: no batch with an example was found.")
        if self._whole is not None:
            return _number(self._whole.result(), self._last)
        return mean_of(self.rows)


def mean_of(rows: Iterable[tuple[float, int]]) -> float:
    """Of values, each over so many examples."""
    total, count = 0.0, 0
    for value, examples in rows:
        total, count = total + value * examples, count + examples
    return total / count


def split_batch(batch: object, index: int) -> tuple[Any, Tensor]:
    """(inputs, targets) of one batch, or DataError with what was found instead."""
    inputs, targets = pair_of(batch, index)
    if not isinstance(targets, Tensor) or targets.dim() == 0:
        raise DataError(
            f"Batch {index}: the targets are {_describe(targets)}; they must be a tensor with one "
            "row per example."
        )
    return inputs, targets


def pair_of(batch: object, index: int) -> tuple[Any, Any]:
    if not isinstance(batch, (tuple, list)) or len(batch) != 2:
        raise DataError(
            f"Batch {index} is {_describe(batch)}; it must be a pair (inputs, targets)."
        )
    return batch[0], batch[1]


def batches_of(batches: object) -> Iterator[Any]:
    if not isinstance(batches, Iterable):
        raise DataError(f"The data is {_describe(batches)}; it must be an iterable of batches.")
    return iter(batches)


def outputs_on(module: Forward, inputs: Any, index: int, device: str) -> Tensor:
    row = Inputs.of(inputs)
    wrong = next((x for x in row if not isinstance(x, Tensor)), None)
    if wrong is not None or not len(row):
        raise DataError(
            f"Batch {index}: the inputs hold {_describe(wrong)}; they must be a tensor, a tuple "
            "of tensors or tensors by keyword."
        )
    try:
        # Copies: a model may write into its inputs, which the next one must not see.
        outputs = primary(row.map(lambda x: x.to(device, copy=True)).call(module))
    except (RuntimeError, AssertionError, TypeError, ValueError, IndexError) as error:
        shapes = ", ".join(f"{list(x.shape)} {str(x.dtype).removeprefix('torch.')}" for x in row)
        reason = str(error).strip().split("\n", 1)[0]
        raise DataError(f"Batch {index}: the model refuses inputs {shapes}: {reason}") from error
    if not isinstance(outputs, Tensor):
        raise DataError(f"Batch {index}: the model returns {_describe(outputs)}, not a tensor.")
    if outputs.is_floating_point() and bool(outputs.isnan().any()):
        raise DataError(
            f"Batch {index}: the model's outputs hold NaN; check its weights and the inputs."
        )
    return outputs


def _check_rows(outputs: Tensor, targets: Tensor, index: int) -> None:
    if outputs.dim() == 0 or outputs.shape[0] != targets.shape[0]:
        raise DataError(
            f"Batch {index}: the outputs have the shape {list(outputs.shape)} and the targets "
            f"{list(targets.shape)}; both must have one row per example."
        )


def _number(value: float | Tensor, index: int) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise DataError(
            f"Batch {index}: the metric returned {_describe(value)}; it must return one number."
        ) from error
    if number != number:
        raise DataError(f"Batch {index}: the metric returned NaN; check outputs and targets.")
    return number


def _describe(value: object) -> str:
    if isinstance(value, (tuple, list)):
        return f"a {type(value).__name__} of {len(value)}"
    if isinstance(value, Tensor):
        return f"a tensor of shape {list(value.shape)}"
    return f"`{type(value).__name__}`"


@contextmanager
def in_eval_mode(module: Forward) -> Iterator[None]:
    # A module of torch.export refuses eval(): it was captured in eval mode and stays there.
    if not isinstance(module, nn.Module) or isinstance(module, torch.fx.GraphModule):
        with kept_state(module):
            yield
        return
    modes = [(m, m.training) for m in module.modules()]
    try:
        module.eval()
        with kept_state(module):
            yield
    finally:
        for m, training in modes:
            m.training = training
