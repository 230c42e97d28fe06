"""One job: what to load, what to reach, on which machine. Plain values: processes pass it on."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..backends.registry import requires
from ..checkpoints.libraries import model_factory
from ..checkpoints.read import Source, read
from ..checkpoints.samples import at_batch, draw_inputs, specs_of_program
from ..core.errors import DataError, MeasureError, UsageError, text_line
from ..core.model_io import Inputs, leaves, plain
from ..core.records import Target
from ..core.user_code import import_all
from ..profiling.machine import check_device


@dataclass(frozen=True)
class Job:
    """`inputs` are entries of `draw_inputs`; paths in `factory` are relative to `base`.

    `ignore`: patterns of tensors that are left out. `imports`: modules that register operators,
    named by the user's flag alone. `batch_given`: the target's batch was asked for, by flag or
    recipe; else the inputs' counts (batch_axes.py).
    """

    checkpoint: str
    target: Target
    factory: str | None = None
    base: str = "."
    args: dict[str, Any] = field(default_factory=dict)
    inputs: tuple[dict[str, Any], ...] = ()
    trust_pickle: bool = False
    seed: int = 0
    ignore: tuple[str, ...] = ()
    imports: tuple[str, ...] = ()
    batch_given: bool = True


def open_source(job: Job) -> Source:
    """The checkpoint as an eval-mode module. Raises CheckpointError, UnsafePickle or UsageError."""
    import_all(job.imports)  # in each process that opens it
    factory = model_factory(job.factory, Path(job.base)) if job.factory else None
    return read(
        Path(job.checkpoint), factory=factory, args=job.args, trust_pickle=job.trust_pickle,
        ignore=job.ignore,
    )  # fmt: skip


def example_inputs(job: Job, source: Source) -> Inputs:
    """Seeded inputs at the target's batch size, from the recipe or the exported program."""
    specs = input_specs(job, source)
    if not specs:
        raise UsageError(
            f"`{job.checkpoint}` does not say what it takes; name the inputs with "
            "`--inputs 1x3x224x224:float32` or `inputs` in the recipe."
        )
    return draw_inputs(at_batch(specs, job.target.batch), job.seed).map(
        lambda x: x.to(job.target.device)
    )


def input_specs(job: Job, source: Source) -> list[dict[str, Any]]:
    """Of what the model takes: as the job says it, else the program."""
    return list(job.inputs) or program_inputs(source)


def program_inputs(source: Source) -> list[dict[str, Any]]:
    """Specs of the example inputs that a program was exported with, one entry per tensor."""
    return specs_of_program(source.program) if source.program is not None else []


def prepare_machine(target: Target, seed: int) -> None:
    """Threads, device and seed for this process.

    Raises UsageError where the device, or what the runtime needs, is missing.
    """
    check_device(target.device)
    requires(target.runtime, target.device)
    if target.threads:
        torch.set_num_threads(target.threads)
    torch.manual_seed(seed)


def check_runs(source: Source, inputs: Inputs) -> list[Tensor]:
    """The original's output tensors on the example inputs: at least one, all finite."""
    try:
        with torch.no_grad():
            outputs = leaves(plain(inputs.call(source.module)))
    except Exception as error:
        shapes = [tuple(x.shape) for x in inputs]
        first = text_line(error)
        raise UsageError(
            f"`{source.path}` does not run on inputs {shapes}: {first}. Check `--inputs`."
        ) from error
    if not outputs:
        raise MeasureError(f"`{source.path}` returns no tensor, so there is nothing to keep equal.")
    if not all(bool(torch.isfinite(x).all()) for x in outputs if x.is_floating_point()):
        raise DataError("the original's output holds NaN or infinity on ordinary inputs.")
    return outputs
