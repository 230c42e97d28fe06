"""Metrics by name, of a batch or of each of its examples; higher is better for every one."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from ..core.errors import DataError

Metric = Callable[[Tensor, Tensor], float | Tensor]
EachMetric = Callable[[Tensor, Tensor], Tensor]


def metric_of(metric: str | Metric) -> Metric:
    if callable(metric):
        return metric
    each = each_of(metric)
    return lambda outputs, targets: each(outputs, targets).mean()


def each_of(metric: str) -> EachMetric:
    """Values [batch] of a metric that is known by name, whose mean it is."""
    if metric not in METRICS:
        allowed = ", ".join(f"`{name}`" for name in METRICS)
        raise DataError(f"`data.metric` is `{metric}`; allowed are {allowed} or a function.")
    return METRICS[metric]


def _top(k: int) -> EachMetric:
    def score(outputs: Tensor, targets: Tensor) -> Tensor:
        _check_classes(outputs, targets)
        best = outputs.topk(min(k, outputs.shape[1]), dim=1).indices
        return (best == targets.unsqueeze(1)).any(1).double()

    return score


def _check_classes(outputs: Tensor, targets: Tensor) -> None:
    if outputs.dim() != 2 or targets.dim() != 1 or targets.is_floating_point():
        raise DataError(
            "Accuracy needs outputs [batch, classes] and integer targets [batch]; found "
            f"{list(outputs.shape)} and {list(targets.shape)} {targets.dtype}. "
            "Use the metric `mse`, `mae` or a function for other outputs."
        )
    if not targets.numel():
        return
    low, high = int(targets.min()), int(targets.max())
    if low < 0 or high >= outputs.shape[1]:
        raise DataError(
            f"The targets reach from {low} to {high}, but the model has {outputs.shape[1]} "
            f"classes; allowed are 0 to {outputs.shape[1] - 1}."
        )


def _error(power: int) -> EachMetric:
    def score(outputs: Tensor, targets: Tensor) -> Tensor:
        if outputs.shape != targets.shape:
            raise DataError(
                f"The outputs have the shape {list(outputs.shape)} and the targets "
                f"{list(targets.shape)}; for `mse` and `mae` they must be the same."
            )
        errors = (outputs.double() - targets.double()).abs().pow(power)
        return -errors.flatten(1).mean(1) if errors.dim() > 1 else -errors

    return score


METRICS: dict[str, EachMetric] = {
    "accuracy": _top(1),
    "top5": _top(5),
    "mse": _error(2),
    "mae": _error(1),
}
