"""The training loop: a learning rate found by trying, reduced precision where faster, early stop.

Every process of a `torchrun` group runs it alike; what is measured is decided by the first one.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from ..configs.settings import Finetune
from ..core.errors import DataError, UsageError
from ..core.model_io import Batches, Inputs
from ..core.progress import Progress
from ..data.load import count_of, several
from ..graph.train_mode import evaluating, gradients, training
from ..profiling.gate import working
from .distillation import DistillationLoss
from .process_group import ProcessGroup

RATES = (3e-3, 1e-3, 3e-4)
PROBE = 0.08  # of the steps for each rate that is tried
CHECKS = 8
FASTER = 0.9  # reduced precision must save a tenth of a step's time
Weights = dict[str, Tensor]


class Diverged(DataError):
    """Training has gone to NaN or infinity."""


Score = tuple[float, float]


@dataclass
class Trainer:
    """`metric(module)` is higher for better; `deadline` a value of `working()` to stop at."""

    objective: DistillationLoss
    train: Batches
    held_out: Batches
    metric: Callable[[nn.Module], float]
    settings: Finetune
    progress: Progress
    device: str = "cpu"
    deadline: float = math.inf
    group: ProcessGroup = field(default_factory=ProcessGroup)
    rate: float | None = field(default=None, init=False)
    _took: float = field(default=0.0, init=False)
    _dtype: torch.dtype | None = field(default=None, init=False)
    _loss_of: nn.Module = field(init=False)

    def score(self) -> Score:
        """The metric, and minus the loss, on held-out data: of equal metrics the surer net wins."""
        with torch.no_grad():
            losses = [
                (float(self.objective(x, y)), len(y)) for x, y in self._on_device(self.held_out)
            ]
        loss = sum(value * n for value, n in losses) / max(1, sum(n for _, n in losses))
        # The metric refuses NaN with a sentence about the data; here the rate may be at fault.
        return (self.metric(self.objective.student) if math.isfinite(loss) else math.nan), -loss

    def run(self) -> int:
        """Train, leave the best weights seen in place; how many steps that took."""
        batches = count_of(self.train)
        if batches < self.group.size:
            raise UsageError(
                f"{self.group.size} processes can't share {batches} batches of training data; "
                "start fewer of them or make the batches smaller."
            )
        total = round(self.settings.epochs * batches / self.group.size)
        if total == 0:
            return 0
        student = self.objective.student
        for parameter in student.parameters():
            parameter.requires_grad_(parameter.is_floating_point())
        try:
            with training(student):
                self._loss_of = self._shared()
                self._dtype, seconds = self._reduced_precision()
                total = self._affordable(total, seconds)
                self.rate = self.settings.lr or self._probed(total)
                # Whole steps were seen by now, with the reading of their batches.
                total = self._affordable(total, self._took or seconds)
                return self._all(self.rate, total)
        finally:
            for parameter in student.parameters():
                parameter.requires_grad_(False)
                parameter.grad = None

    def _shared(self) -> nn.Module:
        if self.group.size == 1:
            return self.objective
        ids = [torch.device(self.device)] if self.device.startswith("cuda") else None
        unused = self._has_unused()
        return DistributedDataParallel(
            self.objective, device_ids=ids, find_unused_parameters=unused
        )

    def _has_unused(self) -> bool:
        """True if there are weights that the loss does not depend on, as those of other outputs."""
        student = self.objective.student
        start = weights_of(student)
        with gradients():
            self.objective(*next(self._batches())).backward()
        unused = any(p.requires_grad and p.grad is None for p in student.parameters())
        student.zero_grad()
        student.load_state_dict(start)
        return unused

    def _all(self, rate: float, total: int) -> int:
        self.progress.stage("fine-tuning", total)
        best, best_weights, waited = self._scored(), weights_of(self.objective.student), 0
        every = max(1, total // CHECKS)
        done = 0
        for done in self._steps(rate, total, total):
            self.progress.advance()
            late = working() > self.deadline
            if done % every and done < total and not self.group.agree(late):
                continue
            score = self._scored()
            waited = 0 if score > best else waited + 1
            if score > best:
                best, best_weights = score, weights_of(self.objective.student)
            if self.group.agree(late or waited >= (self.settings.patience or CHECKS + 1)):
                break
        self.objective.student.load_state_dict(best_weights)
        return done

    def _scored(self) -> Score:
        with evaluating(self.objective.student):
            score = self.group.agree(self.score())
        if not all(map(math.isfinite, score)):
            raise Diverged("the outputs are not finite after training; lower `finetune.lr`.")
        return score

    def _steps(self, rate: float, count: int, total: int) -> Iterator[int]:
        """`count` optimizer steps of a schedule over `total`."""
        optimizer = torch.optim.AdamW(
            self.objective.student.parameters(), lr=rate, weight_decay=1e-4
        )
        for done, (inputs, targets) in enumerate(self._batches(), start=1):
            for entry in optimizer.param_groups:
                entry["lr"] = rate * cosine(done / total)
            self._step(optimizer, inputs, targets)
            yield done
            if done >= count:
                return

    def _step(self, optimizer: torch.optim.Optimizer, inputs: Inputs, targets: Tensor) -> None:
        optimizer.zero_grad()
        loss = self._loss(inputs, targets)
        _backward(loss)
        norm = nn.utils.clip_grad_norm_(self.objective.student.parameters(), 5.0)
        # Gradients are shared, so that all processes see here what went wrong in one of them.
        if not bool(torch.isfinite(norm)) or (
            self.group.size == 1 and not bool(torch.isfinite(loss))
        ):
            raise Diverged(
                "the fine-tuning loss is not finite; lower `finetune.lr` or check the data."
            )
        optimizer.step()

    def _loss(self, inputs: Inputs, targets: Tensor) -> Tensor:
        with self._precision():
            loss: Tensor = self._loss_of(inputs, targets)
        return loss.float()

    def _precision(self) -> contextlib.AbstractContextManager[Any]:
        if self._dtype is None:
            return contextlib.nullcontext()
        return torch.autocast(torch.device(self.device).type, self._dtype)

    def _affordable(self, total: int, seconds: float) -> int:
        """As many steps as fit before the deadline, so that the schedule can come to its end."""
        probing = 1.0 if self.rate or self.settings.lr else 1.0 + PROBE * len(RATES)
        left = max(0.0, self.deadline - working())
        fitting = left / max(seconds * probing, 1e-9)
        return self.group.agree(max(1, min(total, int(min(fitting, total)))))

    def _reduced_precision(self) -> tuple[torch.dtype | None, float]:
        """bfloat16 where a step is measured to be faster with it, and the seconds of a step.

        Autocast keeps float32 weights, and bfloat16 needs no loss scaling, as float16 would
        (Micikevicius et al. 2018).
        """
        inputs, targets = next(self._batches())
        start = weights_of(self.objective.student)
        times: dict[torch.dtype | None, float] = {}
        for dtype in (None, torch.bfloat16) if self.settings.mixed else (None,):
            self._dtype = dtype
            try:
                times[dtype] = min(self._seconds(inputs, targets) for _ in range(3))
            except Exception:  # an operator without bfloat16, or one of the user's that says no
                if dtype is None:
                    raise
                times[dtype] = math.inf
        self.objective.student.load_state_dict(start)
        reduced = times.get(torch.bfloat16, math.inf) < FASTER * times[None]
        best = torch.bfloat16 if reduced else None
        return self.group.agree((best, times[best]))

    def _seconds(self, inputs: Inputs, targets: Tensor) -> float:
        self._wait()
        start = time.perf_counter()
        _backward(self._loss(inputs, targets))
        self._wait()
        return time.perf_counter() - start

    def _wait(self) -> None:
        """Until the GPU has done what was asked of it."""
        if self.device.startswith("cuda"):
            torch.cuda.synchronize(self.device)

    def _probed(self, total: int) -> float:
        """The rate after which, in a short run of its own, the held-out loss is lowest."""
        steps = max(2, round(PROBE * total))
        self.progress.stage("trying learning rates", steps * len(RATES))
        start = weights_of(self.objective.student)
        scores: dict[float, float] = {}
        last, late = 0.5 * (working() + self.deadline), False
        for rate in RATES:
            if late:
                break
            begun = working()
            try:
                for done in self._steps(rate, steps, steps):
                    self.progress.advance()
                    self._took = (working() - begun) / done
                    late = self.group.agree(working() > last)
                    if late:
                        break
                scores[rate] = self._scored()[1]
            except Diverged:
                if (late or rate == RATES[-1]) and not scores:
                    raise
            self.objective.student.load_state_dict(start)
        return max(scores, key=lambda rate: scores[rate])

    def _batches(self) -> Iterator[tuple[Inputs, Tensor]]:
        while True:
            for number, batch in enumerate(self._on_device(several(self.train))):
                if number % self.group.size == self.group.rank:
                    yield batch

    def _on_device(self, batches: Batches) -> Iterator[tuple[Inputs, Tensor]]:
        for inputs, targets in batches:
            yield Inputs.of(inputs).map(lambda x: x.to(self.device)), targets.to(self.device)


def _backward(loss: Tensor) -> None:
    with gradients():
        loss.backward()  # type: ignore[no-untyped-call]


def weights_of(module: nn.Module) -> Weights:
    return {k: v.detach().clone() for k, v in module.state_dict().items()}


def cosine(progress: float) -> float:
    """Warm up over the first 5 %, then a half cosine to 0."""
    if progress < 0.05:
        return progress / 0.05
    return 0.5 * (1 + math.cos(math.pi * (progress - 0.05) / 0.95))
