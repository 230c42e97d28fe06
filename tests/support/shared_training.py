"""Run by `torch.distributed.run`: every process trains on its share and saves what came of it."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
import torch.distributed as dist
from modelspeed.configs.recipe import make_step
from modelspeed.core.progress import Silent
from modelspeed.graph.capture import capture, clone
from modelspeed.training.distillation import DistillationLoss
from modelspeed.training.process_group import ProcessGroup
from modelspeed.training.trainer import Trainer, weights_of
from torch import nn


def batches(size: int):
    """16 examples; batches of 8 are those of 4, two by two."""
    g = torch.Generator().manual_seed(0)
    x, y = torch.randn(16, 5, generator=g), torch.randint(0, 3, (16,), generator=g)
    return [(x[i : i + size], y[i : i + size]) for i in range(0, 16, size)]


def trained(
    group: ProcessGroup, size: int
) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """Weights after an epoch, and the gradients of a single step before it."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(5, 7), nn.GELU(), nn.Linear(7, 3))
    teacher = capture(net, torch.randn(2, 5))
    student = clone(teacher)
    settings = make_step("finetune", epochs=1, lr=1e-2, mixed=False).settings
    data = batches(size)
    objective = DistillationLoss(student, teacher, settings)
    trainer = Trainer(objective, data, data, lambda m: 0.0, settings, Silent(), group=group)
    for parameter in student.parameters():
        parameter.requires_grad_(True)
    trainer._loss_of = trainer._shared()
    trainer._loss(*next(trainer._batches())).backward()
    gradients = {n: p.grad.clone() for n, p in student.named_parameters()}
    student.zero_grad()
    # Held-out scores would restore earlier weights: of each check the last is to count.
    checks = iter(range(99))
    trainer.score = lambda: (float(next(checks)), 0.0)
    trainer.run()
    return weights_of(student), gradients


if __name__ == "__main__":
    dist.init_process_group("gloo")
    joined = ProcessGroup.current()
    torch.save(trained(joined, 4), Path(sys.argv[1]) / f"{joined.rank}.pt")
    dist.destroy_process_group()
