"""Metrics by their name in torchmetrics, such as `torchmetrics:MulticlassF1Score`."""

from __future__ import annotations

import difflib
import inspect
import warnings
from typing import Any

from torch import Tensor

from ..configs.recipe import LIBRARY_METRIC
from ..core.errors import DataError, first_line
from ..core.extras import extra


class LibraryMetric:
    """One metric over all examples; higher is better, so errors come back negated.

    The task and the number of classes are taken from the first batch: outputs [batch, classes] and
    integer targets [batch] are `multiclass`, equal shapes `multilabel`, one output `binary`.
    """

    def __init__(self, spec: str) -> None:
        self.name = spec.removeprefix(LIBRARY_METRIC)
        library = extra("torchmetrics", spec)
        classes = extra("torchmetrics.classification", spec)
        self.kind: Any = getattr(classes, self.name, None) or getattr(library, self.name, None)
        if not inspect.isclass(self.kind) or not hasattr(self.kind, "update"):
            near = difflib.get_close_matches(self.name, [*library.__all__, *classes.__all__], 3)
            hint = ", ".join(f"`{n}`" for n in near) or "listed in its documentation"
            raise DataError(f"torchmetrics has no metric `{self.name}`; near ones are {hint}.")
        self.metric: Any = None

    def reset(self) -> None:
        self.metric = None

    def add(self, outputs: Tensor, targets: Tensor) -> None:
        if outputs.shape == (*targets.shape, 1):
            outputs = outputs.squeeze(-1)  # one score an example
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                if self.metric is None:
                    self.metric = self._metric_for(outputs, targets).to(outputs.device)
                self.metric.update(outputs, targets)
        except (ValueError, RuntimeError, TypeError) as error:
            raise DataError(
                f"`{LIBRARY_METRIC}{self.name}` refuses outputs {list(outputs.shape)} and targets "
                f"{list(targets.shape)} {targets.dtype}: {first_line(error)}"
            ) from error

    def result(self) -> float:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            value = self.metric.compute()
        higher = self.metric.higher_is_better
        if higher is None or not isinstance(value, Tensor) or value.numel() != 1:
            raise DataError(
                f"`{LIBRARY_METRIC}{self.name}` gives no single number of which more, or less, is "
                "better; choose another metric."
            )
        return float(value) if higher else -float(value)

    def _metric_for(self, outputs: Tensor, targets: Tensor) -> Any:
        takes = {*inspect.signature(self.kind.__new__).parameters,
                 *inspect.signature(self.kind.__init__).parameters}  # fmt: skip
        width = outputs.shape[1] if outputs.dim() > 1 else 1
        task = "multiclass" if width > 1 else "binary"
        if width > 1 and outputs.shape == targets.shape:
            task = "multilabel"
        sizes = {"task": task, "num_classes": width, "num_labels": width}
        return self.kind(**{name: value for name, value in sizes.items() if name in takes})


def library_metric(spec: str) -> LibraryMetric | None:
    """The metric that `torchmetrics:NAME` names; None for any other text."""
    return LibraryMetric(spec) if spec.startswith(LIBRARY_METRIC) else None
