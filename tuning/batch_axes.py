"""The axis of the batch in each input, found by running the model where nobody says it.

Examples do not see each other: along the batch, outputs of two together are those of each, side by
side. Time, tokens and pixels are not like that, whatever the order of axes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice, product
from typing import Any

import torch
from torch import Tensor, nn

from ..checkpoints.program_ranges import open_sizes
from ..checkpoints.read import Source
from ..checkpoints.samples import NO_BATCH, at_batch, batch_axis, draw_inputs
from ..core.errors import UsageError
from ..core.model_io import leaves, plain
from ..core.span import spans_to_json
from ..profiling.closeness import relative_error, tolerance_of
from ..profiling.gate import working
from ..profiling.state import kept_state
from .job import Job, input_specs
from .trial_copy import trial_copy

TRIALS, SECONDS = 24, 20.0  # orders of axes that are tried, the likely ones first
SEEDS = (11, 12)
Spec = Mapping[str, Any]
Axes = tuple[int | None, ...]


def settled(job: Job, source: Source) -> Job:
    """The job with inputs that say where their batch is, and a target of the batch that counts: the
    one that was asked for, else that of the inputs. A program that takes any is measured at 1."""
    specs: list[Spec] = [*input_specs(job, source)]
    if not specs:
        return job
    opened = open_sizes(source.program) if source.program is not None else []
    free = [set(row) for row in opened] if opened and len(opened) == len(specs) else None
    if opened and not job.inputs:  # what the program leaves open, the artifact is to take
        specs = [{**s, "varies": spans_to_json(r)} for s, r in zip(specs, opened, strict=True)]
    axes = _axes(specs, free, source.module, job.target.device)
    said = _with_batch(specs, axes)
    batch = job.target.batch
    if job.batch_given and batch > 1 and all(axis is None for axis in axes):
        raise UsageError(f"`batch` is {batch}, and no input has a batch: each says `batch: none`.")
    if not job.batch_given:
        shown = draw_inputs(said, job.seed).batch
        used = [(a, f) for a, f in zip(axes, free or (), strict=False) if a is not None]
        batch = 1 if used and not job.inputs and all(a in f for a, f in used) else shown
    return replace(
        job, inputs=tuple(said), target=replace(job.target, batch=batch), batch_given=True
    )


def _with_batch(specs: Sequence[Spec], axes: Axes) -> list[dict[str, Any]]:
    rows = zip(specs, axes, strict=True)
    return [
        {**spec, "batch": NO_BATCH if axis is None else axis} | _without(spec, axis)
        for spec, axis in rows
    ]


def _without(spec: Spec, axis: int | None) -> dict[str, Any]:
    """Spans of the input without the batch, which varies anyway."""
    varies = spec.get("varies")
    return {"varies": {k: v for k, v in varies.items() if k != str(axis)}} if varies else {}


def _axes(
    specs: Sequence[Spec], free: Sequence[set[int]] | None, model: nn.Module, device: str
) -> Axes:
    if all("batch" in spec for spec in specs):
        return tuple(batch_axis(spec) for spec in specs)
    usual = _usual(specs)
    # One example along the first axis of every input is what nearly every model takes; and of a
    # program with one size in every axis nothing is to be found.
    alone = all(spec["shape"][:1] == [1] for spec in specs)
    if alone or (free is not None and not any(free)):
        return usual
    model = trial_copy(model, device)
    begun = working()
    for axes in islice(_candidates(specs, free), TRIALS):
        if working() - begun > SECONDS:
            break
        if _separates(model, specs, axes):
            return axes
    return usual


def _usual(specs: Sequence[Spec]) -> Axes:
    """The first axis where nothing says otherwise; an input of another length has no batch."""
    sizes = [s["shape"][0] for s in specs if s["shape"]]
    return tuple(
        batch_axis(s) if "batch" in s else (0 if s["shape"][:1] == sizes[:1] and sizes else None)
        for s in specs
    )


def _candidates(specs: Sequence[Spec], free: Sequence[set[int]] | None) -> Iterator[Axes]:
    """Axes of one size: the first of all inputs, the second of all, then every mixture."""
    choices: list[list[int | None]] = []
    for place, spec in enumerate(specs):
        rank = len(spec["shape"])
        open_axes = range(rank) if free is None else sorted(free[place] & set(range(rank)))
        choices.append([batch_axis(spec)] if "batch" in spec else [*open_axes, None])
    mixtures = [
        axes for axes in islice(product(*choices), 1 << 12) if _are_of_one_size(specs, axes)
    ]

    def unlikely(axes: Axes) -> tuple[int, int, int]:
        used = [a for a in axes if a is not None]
        missing = sum(bool(s["shape"]) for s, a in zip(specs, axes, strict=True) if a is None)
        return missing, len(set(used)), sum(used)

    yield from sorted(mixtures, key=unlikely)


def _are_of_one_size(specs: Sequence[Spec], axes: Axes) -> bool:
    """An input without a batch has no axis of that size: the two towers of a contrastive model do
    not separate, and each has its examples all the same."""
    rows = list(zip(specs, axes, strict=True))
    sizes = {spec["shape"][axis] for spec, axis in rows if axis is not None}
    if len(sizes) != 1:
        return False
    return not any(
        axis is None and "batch" not in spec and sizes & set(spec["shape"]) for spec, axis in rows
    )


def _separates(model: nn.Module, specs: Sequence[Spec], axes: Axes) -> bool:
    """Are the outputs of two examples together those of each, beside each other?"""
    laid = at_batch(_with_batch(specs, axes), 1)
    first, drawn = (draw_inputs(laid, seed) for seed in SEEDS)
    other = dict(zip(map(id, first), drawn, strict=True))
    second = first.rows(lambda x, _: other[id(x)])  # what has no batch is the same for both
    pair = first.rows(lambda x, axis: torch.cat([x, other[id(x)]], axis))
    try:
        with torch.no_grad(), kept_state(model):
            both, *alone = (
                leaves(plain(x.map(torch.clone).call(model))) for x in (pair, first, second)
            )
    except Exception:  # of whatever the model computes with a size it does not take
        return False
    allowed = tolerance_of(model.state_dict().values())
    return bool(both) and len({len(both), *map(len, alone)}) == 1 and _beside(both, alone, allowed)


def _beside(both: Sequence[Tensor], alone: Sequence[Sequence[Tensor]], allowed: float) -> bool:
    joined = 0
    for whole, *parts in zip(both, *alone, strict=True):
        if any(_joins(whole, parts, axis, allowed) for axis in range(whole.dim())):
            joined += 1
        elif not all(_near(whole, part, allowed) for part in parts):  # anchors: the same for all
            return False
    return joined > 0


def _joins(whole: Tensor, parts: Sequence[Tensor], axis: int, allowed: float) -> bool:
    if any(part.dim() != whole.dim() for part in parts):
        return False
    try:
        return _near(whole, torch.cat(list(parts), axis), allowed)
    except RuntimeError:  # sizes that do not fit
        return False


def _near(a: Tensor, b: Tensor, allowed: float) -> bool:
    return relative_error(a, b) <= allowed
