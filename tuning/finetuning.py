"""Brief training of an adjusted graph: batch-norm re-estimation, then distillation.

The result is kept only if the evaluation metric is better than before the training.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import GraphModule

from ..adjusters.plan import Batches, outputs_of
from ..core.errors import DataError
from ..graph.training import has_batch_norm, training
from .talk import Talk

Evaluate = Callable[[nn.Module], float]
aten: Any = torch.ops.aten


@dataclass(frozen=True)
class Trained:
    """Accuracies (fractions) before, after re-estimating batch norms, and after training."""

    before: float
    reestimated: float
    after: float
    kept: str
    steps: int


def reestimate_batch_norm(module: GraphModule, train: Batches, batches: int, device: str) -> None:
    """Cumulative batch-norm statistics over `batches` batches (PreciseBN: the plain mean)."""
    if not has_batch_norm(module) or batches == 0:
        return
    norms = [n for n in module.graph.nodes if n.target is aten.batch_norm.default]
    usual = {n: n.args[6] for n in norms}
    try:
        with training(module, dropout=False), torch.no_grad():
            for number, (inputs, _) in enumerate(_endless(train)):
                if number == batches:
                    break
                # momentum 1/(n+1) turns the running average into the mean of all batches
                for node in norms:
                    node.args = (*node.args[:6], 1.0 / (number + 1), *node.args[7:])
                module.recompile()
                outputs_of(module, inputs, device)
    finally:
        for node in norms:
            node.args = (*node.args[:6], usual[node], *node.args[7:])
        module.recompile()


def finetune(
    module: GraphModule,
    teacher: nn.Module,
    train: Batches,
    evaluate: Evaluate,
    settings: Any,
    talk: Talk,
    device: str = "cpu",
    deadline: float = math.inf,
) -> Trained:
    """Train `module` in place; leaves the best of before, re-estimated and trained in it.

    `deadline` is a `time.monotonic()` value at which training stops. Raises DataError where the
    loss is not finite.
    """
    start = _weights(module)
    before = evaluate(module)
    reestimate_batch_norm(module, train, settings.bn_batches, device)
    middle, reestimated = _weights(module), evaluate(module)
    steps = _train(module, teacher, train, settings, talk, device, deadline)
    after = evaluate(module)
    # Only better counts: on a tie the earlier, less changed weights stay.
    ranked = [(before, "nothing", start), (reestimated, "batch norms only", middle)]
    ranked.append((after, "trained", _weights(module)))
    best = max(ranked, key=lambda r: r[0])
    module.load_state_dict(best[2])
    return Trained(before, reestimated, after, best[1], steps)


def _train(
    module: GraphModule,
    teacher: nn.Module,
    train: Batches,
    settings: Any,
    talk: Talk,
    device: str,
    deadline: float,
) -> int:
    per_epoch = sum(1 for _ in train)
    total = round(settings.epochs * per_epoch)
    if total == 0:
        return 0
    for parameter in module.parameters():
        parameter.requires_grad_(parameter.is_floating_point())
    optimiser = torch.optim.SGD(
        module.parameters(), lr=settings.lr, momentum=0.9, nesterov=True, weight_decay=1e-4
    )
    talk.stage("fine-tuning", total)
    done = 0
    with training(module):
        for done, (inputs, targets) in enumerate(_endless(train), start=1):
            for entry in optimiser.param_groups:
                entry["lr"] = settings.lr * _cosine(done / total)
            optimiser.zero_grad()
            loss = _loss(module, teacher, inputs, targets.to(device), settings)
            if not bool(torch.isfinite(loss)):
                raise DataError(
                    "the fine-tuning loss is not finite; lower `finetune.lr` or check the data."
                )
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(module.parameters(), 5.0)
            optimiser.step()
            talk.advance()
            if done >= total or time.monotonic() > deadline:
                break
    for parameter in module.parameters():
        parameter.requires_grad_(False)
        parameter.grad = None
    return done


def _loss(
    module: nn.Module, teacher: nn.Module, inputs: Any, targets: Tensor, settings: Any
) -> Tensor:
    """alpha * T^2 KL(teacher || student) + (1 - alpha) * task loss (Hinton et al. 2015)."""
    device = str(targets.device)
    outputs = outputs_of(module, inputs, device)
    if targets.is_floating_point():
        task = nn.functional.mse_loss(outputs, targets)
    else:
        task = nn.functional.cross_entropy(
            outputs, targets, label_smoothing=settings.label_smoothing
        )
    if not settings.distill:
        return task
    with torch.no_grad():
        wanted = outputs_of(teacher, inputs, device)
    if targets.is_floating_point():
        soft = nn.functional.mse_loss(outputs, wanted)
    else:
        t = settings.temperature
        soft = (
            t
            * t
            * nn.functional.kl_div(
                (outputs / t).log_softmax(1),
                (wanted / t).log_softmax(1),
                reduction="batchmean",
                log_target=True,
            )
        )
    alpha = float(settings.alpha)
    return alpha * soft + (1 - alpha) * task


def _cosine(progress: float) -> float:
    """Warm up over the first 5 %, then a half cosine to 0."""
    if progress < 0.05:
        return progress / 0.05
    return 0.5 * (1 + math.cos(math.pi * (progress - 0.05) / 0.95))


def _endless(train: Batches) -> Iterator[tuple[Any, Tensor]]:
    while True:
        yield from train


def _weights(module: nn.Module) -> dict[str, Tensor]:
    return {k: v.detach().clone() for k, v in module.state_dict().items()}
