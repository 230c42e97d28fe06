"""What an adjuster sees and what it answers with. Adjusters decide; they change nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import GraphModule

from ..core.calling import Inputs, primary
from ..core.errors import DataError
from ..core.records import LeftAlone
from ..graph.capture import tensor_at
from ..graph.edits import Edit, Equalize, FoldBatchNorm, apply
from ..graph.groups import Analysis, analyse
from ..graph.layers import Layer

IGNORED = -100  # torch's own number for what cross-entropy leaves out
EXACT = (FoldBatchNorm, Equalize)  # edits that leave outputs as they are
# (inputs, targets): inputs are a tensor, a tuple of tensors or tensors by keyword.
Batches = Iterable[tuple[Any, Tensor]]


@dataclass(frozen=True)
class Context:
    """The model as it stands, with what is known about its use. `train` is None without data.

    `through_norms`: as in `graph.groups.analyse`. `lowered`: it will run on packed kernels.
    `model`: the user's own, which `module` is a capture of, where it's at hand.
    """

    module: GraphModule
    inputs: Inputs
    train: Batches | None = None
    device: str = "cpu"
    seed: int = 0
    through_norms: bool = False
    lowered: bool = True
    model: nn.Module | None = None

    @cached_property
    def analysis(self) -> Analysis:
        return analyse(self.module, self.through_norms)


@dataclass(frozen=True)
class Plan:
    """Edits to apply, and what was left as it is with the reason. `trains`: weights are trained.

    `for_speed`: the edits bring nothing but speed, so they go where they measure no faster.
    `weights`: values that parameters get after the edits, where data has a say in them.
    """

    edits: tuple[Edit, ...] = ()
    left_alone: tuple[LeftAlone, ...] = ()
    trains: bool = False
    for_speed: bool = False
    weights: Mapping[str, Tensor] = field(default_factory=dict)

    def carry_out(self, module: GraphModule) -> GraphModule:
        """Edits and weights on `module` itself."""
        apply(module, self.edits)
        for name, value in self.weights.items():
            tensor_at(module, name).data.copy_(value)
        return module

    def carry_out_on(self, layer: Layer, module: GraphModule) -> GraphModule:
        """Of `layer` alone, on `module` itself, where the plan's exact edits have been made."""
        before = {name for name, _ in _tensors(module)}
        edits = [e for e in self.edits if getattr(e, "node", "") == layer.node.name]
        apply(module, [e for e in edits if not isinstance(e, EXACT)])
        made = {name for name, _ in _tensors(module)} - before
        for name in {layer.weight, layer.bias, *made} & set(self.weights):
            tensor_at(module, str(name)).data.copy_(self.weights[str(name)])
        return module


def _tensors(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    yield from module.named_parameters(remove_duplicate=False)
    yield from module.named_buffers(remove_duplicate=False)


@dataclass(frozen=True)
class Adjuster:
    """One named strategy. `lossless`: its edits can't change outputs beyond rounding."""

    name: str
    summary: str
    plan: Callable[[Context, Any], Plan]
    lossless: bool = False


def outputs_of(module: nn.Module, inputs: Any, device: str) -> Tensor:
    """The output that losses look at (`primary`), for inputs as a user's batch holds them."""
    found = primary(Inputs.of(inputs).map(lambda x: x.to(device)).call(module))
    assert isinstance(found, Tensor)
    return found


def has_classes(outputs: Tensor, targets: Any) -> bool:
    """Whether outputs [batch, classes] are logits: more than one, and targets not real-valued."""
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
    found = f"outputs {list(outputs.shape)} and targets {list(targets.shape)} {targets.dtype}"
    if not outputs.is_floating_point() or targets.is_complex():
        raise DataError(f"training needs real-valued outputs, and real or whole targets; {found}.")
    if targets.is_floating_point():
        if outputs.shape != targets.shape:
            raise DataError(
                "training needs real-valued targets of the outputs' shape, or class numbers as "
                f"integers; {found}."
            )
        return nn.functional.mse_loss(outputs, targets.to(outputs.dtype))
    classes = classes_of(outputs, targets)
    check_class_numbers(targets, classes)
    logits = classes_second(outputs, targets)
    return nn.functional.cross_entropy(
        logits, targets.long(), ignore_index=IGNORED, label_smoothing=smoothing
    )


def classes_of(outputs: Tensor, targets: Tensor) -> int:
    """How many classes logits tell apart. Raises DataError where targets are no rows of them."""
    logits = classes_second(outputs, targets)
    if logits.dim() < 2 or logits.shape[:1] + logits.shape[2:] != targets.shape:
        found = f"outputs {list(outputs.shape)} and targets {list(targets.shape)} {targets.dtype}"
        raise DataError(f"training needs one class number for each row of logits; {found}.")
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
        said += "; where -1 or 255 marks what to ignore, leave it out or set it to -100, which"
        said += " training skips"
    raise DataError(
        f"training needs class numbers from 0 to {classes - 1}, as the model gives {classes} "
        f"logits; {said}."
    )


def parameter_names(module: nn.Module) -> list[str]:
    """Names of all floating-point parameters and buffers, tied ones once."""
    named = [*module.named_parameters(), *module.named_buffers()]
    return [n for n, t in named if t.is_floating_point() and t.dtype != torch.bool]
