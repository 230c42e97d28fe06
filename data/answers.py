"""A model's own answers as the targets of data: others are measured by how near they come."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from ..core.model_io import AnyInputs, Batches
from ..profiling.accuracy import in_eval_mode, outputs_on, split_batch
from ..profiling.side_by_side import Agreement, are_class_scores


class Answered:
    """Batches whose targets are what `model` says: the class it chooses, or all of its output."""

    def __init__(self, batches: Batches, model: nn.Module, device: str) -> None:
        self.batches, self.model, self.device = batches, model, device

    def __iter__(self) -> Iterator[tuple[AnyInputs, Tensor]]:
        for index, batch in enumerate(self.batches):
            inputs, _ = split_batch(batch, index)
            with torch.no_grad(), in_eval_mode(self.model):
                outputs = outputs_on(self.model, inputs, index, self.device)
            yield inputs, (outputs.argmax(1) if are_class_scores(outputs) else outputs).cpu()


def agreed(outputs: Tensor, answers: Tensor) -> float:
    """Share of equal classes; elsewhere as `Agreement`."""
    if are_class_scores(outputs) and not answers.is_floating_point():
        return float((outputs.argmax(1) == answers).double().mean())
    same = Agreement()
    same.add(answers, outputs.detach(), 0)
    return same.result()
