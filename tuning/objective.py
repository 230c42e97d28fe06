"""What fine-tuning minimises: the task, the original's outputs, and what its layers read."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.fx import GraphModule

from ..adjusters.plan import task_loss
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
        taps = _taps(student, teacher, kept) if settings.distill and settings.features else {}
        self._taps = taps
        # Kept out of the module's own children: the teacher is neither trained nor synchronised.
        self._watched = (Watch(student, taps), Watch(teacher, taps))

    def forward(self, inputs: Inputs, targets: Tensor) -> Tensor:
        mine, original = self._watched
        outputs = primary(mine.of(inputs))
        task = self._task(outputs, targets)
        if not self.settings.distill:
            return task
        with torch.no_grad():
            wanted = primary(original.of(inputs))
        alpha = self.settings.alpha
        loss = alpha * self._soft(outputs, wanted, targets) + (1 - alpha) * task
        return loss + self.settings.features * self._features() if self._taps else loss

    def _task(self, outputs: Tensor, targets: Tensor) -> Tensor:
        if targets.is_floating_point():
            return task_loss(outputs, targets)
        smoothing = self.settings.label_smoothing
        return nn.functional.cross_entropy(outputs, targets, label_smoothing=smoothing)

    def _soft(self, outputs: Tensor, wanted: Tensor, targets: Tensor) -> Tensor:
        if targets.is_floating_point():
            return nn.functional.mse_loss(outputs, wanted)
        t = self.settings.temperature
        student, teacher = ((x / t).log_softmax(1) for x in (outputs, wanted))
        found = nn.functional.kl_div(student, teacher, reduction="batchmean", log_target=True)
        return t * t * found

    def _features(self) -> Tensor:
        mine, original = (w.values for w in self._watched)
        rows = []
        for name, (axis, index) in self._taps.items():
            wanted = original[name]
            if index is not None:
                wanted = wanted.index_select(axis % wanted.dim(), index.to(wanted.device))
            rows.append((mine[name] - wanted).square().mean() / wanted.var().clamp_min(1e-8))
        return torch.stack(rows).mean()


def _taps(
    student: GraphModule, teacher: GraphModule, kept: Kept
) -> dict[str, tuple[int, Tensor | None]]:
    """By node name: the channel axis and the original's channels that are left, None for all."""
    known = {n.name for n in teacher.graph.nodes}
    taps: dict[str, tuple[int, Tensor | None]] = {}
    for layer in layers_of(student):
        name = layer.source.name
        if layer.source.op != "call_function" or name not in known or layer.groups > 1:
            continue
        index = kept.get((layer.weight, 1))
        taps[name] = (layer.channel_axis, None if index is None else torch.tensor(index))
    return taps
