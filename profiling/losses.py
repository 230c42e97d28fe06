"""Task losses: cross-entropy of class numbers, mean squared error of real values."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from ..core.errors import DataError
from ..core.model_io import Inputs, primary

IGNORED = -100  # torch's own number for what cross-entropy leaves out


def outputs_of(module: nn.Module, inputs: Any, device: str) -> Tensor:
    """The output that losses look at (`primary`), for inputs as a user's batch holds them."""
    output = primary(Inputs.of(inputs).map(lambda x: x.to(device)).call(module))
    assert isinstance(output, Tensor)
    return output


def has_classes(outputs: Tensor, targets: Any) -> bool:
    """True if outputs [batch, classes] are logits: more than one, and targets not real-valued."""
    real = isinstance(targets, Tensor) and targets.is_floating_point()
    return outputs.dim() == 2 and outputs.shape[1] > 1 and not real


def classes_second(outputs: Tensor, targets: Tensor) -> Tensor:
    """Logits as [batch, classes, ...]: those of tokens come as [batch, tokens, classes]."""
    last = outputs.dim() > 2 and outputs.shape[:-1] == targets.shape
    return outputs.movedim(-1, 1) if last else outputs


def task_loss(outputs: Tensor, targets: Tensor, smoothing: float = 0.0) -> Tensor:
    """Cross-entropy for integer class targets, mean squared error for real-valued ones.

    Targets of `IGNORED` count for nothing. Raises DataError where the two do not fit.
    """
    shapes = f"outputs {list(outputs.shape)} and targets {list(targets.shape)} {targets.dtype}"
    if not outputs.is_floating_point() or targets.is_complex():
        raise DataError(f"training needs real-valued outputs, and real or whole targets; {shapes}.")
    if targets.is_floating_point():
        if outputs.shape != targets.shape:
            raise DataError(
                "training needs real-valued targets of the outputs' shape, or class numbers as "
                f"integers; {shapes}."
            )
        return nn.functional.mse_loss(outputs, targets.to(outputs.dtype))
    classes = classes_of(outputs, targets)
    check_class_numbers(targets, classes)
    logits = classes_second(outputs, targets)
    return nn.functional.cross_entropy(
        logits, targets.long(), ignore_index=IGNORED, label_smoothing=smoothing
    )


def classes_of(outputs: Tensor, targets: Tensor) -> int:
    """The number of classes in logits. Raises DataError if the targets do not fit their rows."""
    logits = classes_second(outputs, targets)
    if logits.dim() < 2 or logits.shape[:1] + logits.shape[2:] != targets.shape:
        shapes = f"outputs {list(outputs.shape)} and targets {list(targets.shape)} {targets.dtype}"
        raise DataError(f"training needs one class number for each row of logits; {shapes}.")
    return logits.shape[1]


def check_class_numbers(targets: Tensor, classes: int) -> None:
    """Raises DataError where a target names no class."""
    named = targets[targets != IGNORED]
    if not named.numel():
        return
    low, high = int(named.min()), int(named.max())
    if low >= 0 and high < classes:
        return
    said = f"the targets reach from {low} to {high}"
    if low == -1 or high == 255:
        said += "; if -1 or 255 marks what to ignore, leave it out or set it to -100, which"
        said += " training skips"
    raise DataError(
        f"training needs class numbers from 0 to {classes - 1}, as the model gives {classes} "
        f"logits; {said}."
    )
