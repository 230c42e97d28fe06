"""What fine-tuning minimises: the task, the original's outputs, and what its layers read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.fx import GraphModule

from ..adjusters.plan import classes_second, task_loss
from ..configs.settings import Finetune
from ..core.calling import Inputs, primary
from ..graph.layers import layers_of
from ..graph.watching import Watch

Kept = Mapping[tuple[str, int], tuple[int, ...]]


class Objective(nn.Module):
    """The loss of `student` as a module, so that `DistributedDataParallel` can wrap it.

    alpha * T^2 KL(teacher || student) + (1 - alpha) * task (Hinton et al. 2015), and `features`
    times the mean over layers of |s - t|^2 / var(t), s and t what a layer of the student and the
    same layer of the teacher read (Romero et al. 2015; no regressor is needed, since `kept` says
    which channels of the original are left). Raises nothing; the caller checks for NaN.
    """

    def __init__(
        self, student: GraphModule, teacher: GraphModule, kept: Kept, settings: Finetune
    ) -> None:
        super().__init__()
        self.student, self.settings = student, settings
        taps = _taps(student, teacher, kept) if settings.distill and settings.features else ()
        self._taps = taps
        # Kept out of the module's own children: the teacher is neither trained nor synchronised.
        self._watched = (
            Watch(student, (t.student for t in taps)), Watch(teacher, (t.teacher for t in taps))
        )  # fmt: skip

    def forward(self, inputs: Inputs, targets: Tensor) -> Tensor:
        mine, original = self._watched
        outputs = primary(mine.of(inputs))
        task = task_loss(outputs, targets, self.settings.label_smoothing)
        if not self.settings.distill:
            return task
        with torch.no_grad():
            wanted = primary(original.of(inputs))
        alpha = self.settings.alpha
        loss = alpha * self._soft(outputs, wanted, targets) + (1 - alpha) * task
        return loss + self.settings.features * self._features() if self._taps else loss

    def _soft(self, outputs: Tensor, wanted: Tensor, targets: Tensor) -> Tensor:
        if targets.is_floating_point():
            return nn.functional.mse_loss(outputs, wanted)
        t = self.settings.temperature
        student, teacher = (
            (classes_second(x, targets) / t).log_softmax(1) for x in (outputs, wanted)
        )
        found = nn.functional.kl_div(student, teacher, reduction="none", log_target=True)
        # Summed over classes, averaged over all else, as the task's loss is.
        return t * t * found.sum(1).mean()

    def _features(self) -> Tensor:
        mine, original = (w.values for w in self._watched)
        rows = []
        for tap in self._taps:
            wanted, found = original[tap.teacher], mine[tap.student]
            if tap.index is not None:
                wanted = wanted.index_select(tap.axis % wanted.dim(), tap.index.to(wanted.device))
            rows.append((found - wanted).square().mean() / wanted.var().clamp_min(1e-8))
        return torch.stack(rows).mean()


@dataclass(frozen=True)
class _Tap:
    """What a layer reads in both graphs: the nodes' names, the channel axis and the original's
    channels that are left, None for all."""

    student: str
    teacher: str
    axis: int
    index: Tensor | None


def _taps(student: GraphModule, teacher: GraphModule, kept: Kept) -> tuple[_Tap, ...]:
    original = {layer.node.name: layer.source for layer in layers_of(teacher)}
    taps: dict[str, _Tap] = {}
    for layer in layers_of(student):
        source = original.get(layer.node.name)
        if source is None or "placeholder" in (source.op, layer.source.op) or layer.groups > 1:
            continue
        index = kept.get((layer.weight, 1))
        channels = None if index is None else torch.tensor(index)
        name = layer.source.name
        taps[name] = _Tap(name, source.name, layer.channel_axis, channels)
    return tuple(taps.values())
