"""Brief training of an adjusted graph: batch-norm re-estimation, then distillation.

The result is kept only if it is better on the data that decides than before the training.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch
from torch.fx import GraphModule

from ..core.model_io import Batches
from ..data.load import several
from ..graph.operators import aten
from ..graph.train_mode import has_batch_norm, training
from ..profiling.losses import outputs_of
from .trainer import Diverged, Score, Trainer, Weights, weights_of


@dataclass(frozen=True)
class Trained:
    """The metric before, after re-estimating batch norms, and after training; `rate` is None where
    nothing was trained."""

    before: float
    reestimated: float
    after: float
    kept: str
    steps: int
    rate: float | None = None


def finetune(trainer: Trainer) -> Trained:
    """Train `trainer.objective.student` in place; leaves the best of before, re-estimated and
    trained in it, and what it was where the training fails. Raises DataError where the loss is
    not finite.
    """
    start = weights_of(trainer.objective.student)
    try:
        return _trained(trainer)
    except BaseException:
        trainer.objective.student.load_state_dict(start)
        raise


def _trained(trainer: Trainer) -> Trained:
    student, settings = trainer.objective.student, trainer.settings
    ranked: list[tuple[Score, str, Weights]] = []

    def note(name: str) -> float:
        score = trainer.group.agree(trainer.score())
        ranked.append((score, name, weights_of(student)))
        return score[0]

    before = note("nothing")
    if not math.isfinite(before):
        raise Diverged("the outputs are not finite before any training; check the weights.")
    reestimate_batch_norm(student, trainer.train, settings.bn_batches, trainer.device)
    reestimated = note("batch norms only")
    if not math.isfinite(reestimated):
        ranked.pop()  # values that overflow: training starts from the statistics as they were
        student.load_state_dict(ranked[0][2])
    steps = trainer.run()
    after = note("trained")
    # Only better counts: of equals the earlier, less changed weights stay.
    best = max(ranked, key=lambda r: r[0])
    student.load_state_dict(best[2])
    return Trained(before, reestimated, after, best[1], steps, trainer.rate)


def reestimate_batch_norm(module: GraphModule, train: Batches, batches: int, device: str) -> None:
    """Cumulative batch-norm statistics over `batches` batches (PreciseBN: the plain mean)."""
    if not has_batch_norm(module) or batches == 0:
        return
    norms = [n for n in module.graph.nodes if n.target is aten.batch_norm.default]
    usual = {n: n.args[6] for n in norms}
    try:
        with training(module, dropout=False), torch.no_grad():
            for number, inputs in enumerate(_rounds(train, batches)):
                # momentum 1/(n+1) turns the running average into the mean of all batches
                for node in norms:
                    node.args = (*node.args[:6], 1.0 / (number + 1), *node.args[7:])
                module.recompile()
                outputs_of(module, inputs, device)
    finally:
        for node in norms:
            node.args = (*node.args[:6], usual[node], *node.args[7:])
        module.recompile()


def _rounds(train: Batches, count: int) -> Iterator[Any]:
    """Inputs of `count` batches, in as many passes as that takes."""
    given = 0
    while given < count:
        for inputs, _ in islice(several(train), count - given):
            given += 1
            yield inputs
