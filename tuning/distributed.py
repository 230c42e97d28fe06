"""Fine-tuning by all processes that `torchrun` started.

The first process runs the tool. The others wait until it comes to a fine-tuning, take part in it
with their share of the batches, and wait again; nothing else runs in them, so that it can measure.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.fx import GraphModule

from ..configs.recipe import Recipe
from ..configs.settings import Finetune
from ..core.errors import DataError, ModelspeedError
from ..core.progress import Silent
from ..data.augmentation import Augmented
from ..graph.capture import clone
from ..graph.edits.apply import Edit, apply, edits_from_json, edits_to_json
from ..profiling.machine import threads
from ..training.distillation import DistillationLoss
from ..training.finetuning import Trained, finetune
from ..training.process_group import ProcessGroup
from ..training.quantization_aware import store_integers, trainable
from ..training.trainer import Trainer, weights_of
from .job import Job
from .session import Session, open_session

# A process that ends closes its connections, which is noticed at once: no time-out needs to be
# short, and the first process may search for as long as `limits.minutes` lets it.
PATIENCE = timedelta(days=7)


@dataclass(frozen=True)
class TrainingRequest:
    """All that another process needs to train the same graph."""

    job: Job
    recipe: Recipe
    edits: list[dict[str, Any]]
    weights: dict[str, Tensor]
    settings: Finetune
    threads: int


@contextmanager
def coordinator(device: str) -> Iterator[None]:
    """The first process's side: the others are let go when the block ends, however it does."""
    _join(device)
    try:
        yield
    finally:
        if dist.is_initialized():
            with suppress(RuntimeError):  # they are gone already
                ProcessGroup.current().agree(None)
            dist.destroy_process_group()


def worker_loop(device: str) -> None:
    """Take part in every fine-tuning until the first process lets go or is gone."""
    nothing: TrainingRequest | None = None
    group = _join(device)
    try:
        while (request := group.agree(nothing)) is not None:
            _help(request, group)
    except KeyboardInterrupt:
        pass  # the first process says so
    except RuntimeError as error:
        if not _is_connection(error):
            raise
    finally:
        dist.destroy_process_group()


def finetune_on_all(
    session: Session,
    student: GraphModule,
    edits: Sequence[Edit],
    settings: Finetune,
    deadline: float,
) -> Trained:
    """Train `student`, made by `edits`, in place, by all processes of the group.

    Weights in integers are trained as floats that are rounded at every step.
    """
    form = trainable(student)
    trainer = _trainer(session, form, settings)
    trainer.deadline = deadline
    trained = _trained(session, student, edits, trainer)
    store_integers(form, student)
    return trained


def _trained(
    session: Session, student: GraphModule, edits: Sequence[Edit], trainer: Trainer
) -> Trained:
    if ProcessGroup.current().size == 1:
        return finetune(trainer)
    share = max(1, torch.get_num_threads() // int(os.environ["LOCAL_WORLD_SIZE"]))
    weights = {k: v.cpu() for k, v in weights_of(student).items()}
    request = TrainingRequest(
        session.job, session.recipe, edits_to_json(edits), weights, trainer.settings, share
    )
    ProcessGroup.current().agree(request)
    try:
        return _collective(trainer, request, None)
    except ModelspeedError:
        raise  # all processes have met the same
    except BaseException:
        # The others are in the middle of a step, where no message reaches them.
        dist.destroy_process_group()
        raise  # what comes after the failed step is done by this process alone


def _join(device: str) -> ProcessGroup:
    cuda = device.startswith("cuda") and torch.cuda.is_available()
    # Objects go by gloo in any case: waiting on it takes no time of the CPU.
    dist.init_process_group("cpu:gloo,cuda:nccl" if cuda else "gloo", timeout=PATIENCE)
    return ProcessGroup.current()


def _help(request: TrainingRequest, group: ProcessGroup) -> None:
    trainer, problem = None, None
    try:
        session = open_session(_here(request.job), request.recipe, Silent())
        student = apply(clone(session.original), edits_from_json(request.edits))
        student.load_state_dict(request.weights)
        trainer = _trainer(session, trainable(student), request.settings)
    except (ModelspeedError, OSError) as error:
        problem = f"process {group.rank}: {error}"
    with suppress(ModelspeedError):  # the first process tells
        _collective(trainer, request, problem)


def _here(job: Job) -> Job:
    """Each process of a machine has a GPU of its own."""
    device = job.target.device
    if device.startswith("cuda"):
        device = f"cuda:{os.environ['LOCAL_RANK']}"
        torch.cuda.set_device(device)
    return replace(job, target=replace(job.target, device=device))


def _trainer(session: Session, student: GraphModule, settings: Finetune) -> Trainer:
    data, spec = session.data, session.recipe.data
    assert data is not None and spec is not None
    return Trainer(
        DistillationLoss(student, session.original, settings),
        Augmented(data.train, spec.augment, session.job.seed) if spec.augment else data.train,
        data.held_out,
        lambda m: data.rank(m, session.original, session.device),
        settings,
        session.progress,
        session.device,
        math.inf,
        ProcessGroup.current(),
    )


def _collective(trainer: Trainer | None, request: TrainingRequest, problem: str | None) -> Trained:
    problems = [p for p in ProcessGroup.current().gathered(problem) if p]
    if problems or trainer is None:
        raise DataError(problems[0])
    # Shuffled batches come in the same order everywhere, so that shares don't overlap.
    torch.manual_seed(request.job.seed)
    with threads(request.threads):
        return finetune(trainer)


def _is_connection(error: RuntimeError) -> bool:
    return isinstance(error, dist.DistError) or "gloo" in str(error)
