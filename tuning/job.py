"""One job: what to load, what to reach, on which machine. Plain values: processes pass it on."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..checkpoints.factory import load_factory
from ..checkpoints.read import Source, read
from ..checkpoints.samples import draw_inputs
from ..core.errors import DataError, MeasureError, UsageError
from ..core.records import Target


@dataclass(frozen=True)
class Job:
    """`inputs` are {shape, dtype} entries; `factory` is `FILE.py:NAME` relative to `base`."""

    checkpoint: str
    target: Target
    factory: str | None = None
    base: str = "."
    args: dict[str, Any] = field(default_factory=dict)
    inputs: tuple[dict[str, Any], ...] = ()
    trust_pickle: bool = False
    seed: int = 0


def open_source(job: Job) -> Source:
    """The checkpoint as an eval-mode module. Raises CheckpointError, UnsafePickle or UsageError."""
    factory = load_factory(job.factory, Path(job.base)) if job.factory else None
    return read(Path(job.checkpoint), factory=factory, args=job.args, trust_pickle=job.trust_pickle)


def example_inputs(job: Job, source: Source) -> tuple[Tensor, ...]:
    """Seeded inputs at the target's batch size, from the recipe or the exported program."""
    specs = list(job.inputs) or _program_inputs(source)
    if not specs:
        raise UsageError(
            f"`{job.checkpoint}` does not say what it takes; name the inputs with "
            "`--inputs 1x3x224x224:float32` or `inputs` in the recipe."
        )
    sized = [{**s, "shape": [job.target.batch, *list(s["shape"])[1:]]} for s in specs]
    return tuple(x.to(job.target.device) for x in draw_inputs(sized, job.seed))


def _program_inputs(source: Source) -> list[dict[str, Any]]:
    shown = source.program.example_inputs if source.program is not None else None
    tensors = shown[0] if shown else ()
    return [
        {"shape": list(x.shape), "dtype": str(x.dtype).removeprefix("torch.")}
        for x in tensors
        if isinstance(x, Tensor)
    ]


def prepare_machine(target: Target, seed: int) -> None:
    """Threads, device and seed for this process. Raises UsageError where the device is missing."""
    if target.device.startswith("cuda") and not torch.cuda.is_available():
        raise UsageError(f"`--device {target.device}`: this torch build sees no CUDA device.")
    if target.threads:
        torch.set_num_threads(target.threads)
    torch.manual_seed(seed)


def check_runs(source: Source, inputs: tuple[Tensor, ...]) -> Tensor:
    """The original's output on the example inputs; one tensor, finite."""
    try:
        with torch.no_grad():
            output = source.module(*inputs)
    except Exception as error:
        shapes = [tuple(x.shape) for x in inputs]
        first = (str(error).strip() or repr(error)).splitlines()[0]
        raise UsageError(
            f"`{source.path}` does not run on inputs {shapes}: {first} Check `--inputs`."
        ) from error
    if not isinstance(output, Tensor):
        raise MeasureError(
            f"the model returns {type(output).__name__}; models that return one tensor work so far."
        )
    if not bool(torch.isfinite(output).all()):
        raise DataError("the original's output holds NaN or infinity on ordinary inputs.")
    return output
