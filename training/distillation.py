"""The loss that fine-tuning minimizes: the task and the original's outputs."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.fx import GraphModule

from ..configs.settings import Finetune
from ..core.model_io import Inputs, primary
from ..profiling.losses import classes_second, task_loss


class DistillationLoss(nn.Module):
    """The loss of `student` as a module, so that `DistributedDataParallel` can wrap it.

    alpha * T^2 KL(teacher || student) + (1 - alpha) * task (Hinton et al. 2015). Raises nothing;
    the caller checks for NaN.
    """

    def __init__(self, student: GraphModule, teacher: GraphModule, settings: Finetune) -> None:
        super().__init__()
        self.student, self.settings = student, settings
        # Kept out of the module's own children: the teacher is neither trained nor synchronized.
        self._teacher = (teacher,)

    def forward(self, inputs: Inputs, targets: Tensor) -> Tensor:
        outputs = primary(inputs.call(self.student))
        task = task_loss(outputs, targets, self.settings.label_smoothing)
        if not self.settings.distill:
            return task
        with torch.no_grad():
            wanted = primary(inputs.call(self._teacher[0]))
        alpha = self.settings.alpha
        return alpha * self._soft(outputs, wanted, targets) + (1 - alpha) * task

    def _soft(self, outputs: Tensor, wanted: Tensor, targets: Tensor) -> Tensor:
        if targets.is_floating_point():
            return nn.functional.mse_loss(outputs, wanted)
        t = self.settings.temperature
        student, teacher = (
            (classes_second(x, targets) / t).log_softmax(1) for x in (outputs, wanted)
        )
        divergence = nn.functional.kl_div(student, teacher, reduction="none", log_target=True)
        # Summed over classes, averaged over all else, as the task's loss is.
        return t * t * divergence.sum(1).mean()
