"""Leave out whole residual blocks, the least important first; the skip connection remains."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from itertools import islice

import torch

from ..configs.settings import DropBlocks
from ..core.model_io import Inputs
from ..core.records import LeftAlone
from ..graph.blocks import Block, innermost, residual_blocks, sums_of_branches
from ..graph.edits.apply import leave_out
from ..graph.interpreter import Recorder
from .plan import Adjuster, Context, Plan

BATCHES = 4


def plan(context: Context, settings: DropBlocks) -> Plan:
    """Drop `count` blocks that change what passes through them least."""
    free = droppable(context, settings)
    chosen: list[Block] = []
    if settings.count:
        scores = influence(context, free)
        least = sorted(free, key=lambda b: scores[b.total])[: settings.count]
        chosen = [b for b in free if b in least]
    return Plan(leave_out(chosen), blocks_left_alone(context, settings))


def droppable(context: Context, settings: DropBlocks) -> tuple[Block, ...]:
    """Blocks in graph order that can go one by one: of nested ones the innermost."""
    blocks = residual_blocks(context.module)
    return innermost(context.module, (b for b in blocks if not _skipped(b, settings)))


def blocks_left_alone(context: Context, settings: DropBlocks) -> tuple[LeftAlone, ...]:
    """Blocks that stay whatever is chosen, with the reason."""
    blocks = residual_blocks(context.module)
    left = [LeftAlone(b.name, "`skip` names it") for b in blocks if _skipped(b, settings)]
    left += [
        LeftAlone(n.name, "both sides of this sum are computed apart, so neither can go")
        for n in sums_of_branches(context.module)
    ]
    if not blocks:
        left.insert(
            0, LeftAlone("blocks", "the graph has no sum whose one side comes from the other")
        )
    return tuple(left)


def _skipped(block: Block, settings: DropBlocks) -> bool:
    return any(fnmatchcase(block.name, p) for p in settings.skip)


def influence(context: Context, blocks: Sequence[Block]) -> dict[str, float]:
    """By name of its sum: mean over batches of |block(x) - x|^2 / |block(x)|^2, without units.

    Near zero where a block passes on what it gets (Block Influence of Men et al. 2024, ShortGPT,
    eq. 1, with the relative distance in place of the cosine). Example inputs stand in for data.
    """
    totals = {b.total: 0.0 for b in blocks}
    seen = 0
    # In-place activations overwrite a sum, so copies are looked at.
    watch = Recorder(context.module, {n for b in blocks for n in (b.total, b.skip)}, copy=True)
    with torch.no_grad():
        for inputs in islice(_batches(context), BATCHES):
            watch.of(inputs)
            for block in blocks:
                before, after = (watch.values[n].double() for n in (block.skip, block.total))
                change = float((after - before).square().sum())
                totals[block.total] += change / max(float(after.square().sum()), 1e-30)
            seen += 1
    return {name: total / max(1, seen) for name, total in totals.items()}


def _batches(context: Context) -> Iterator[Inputs]:
    if context.train is None:
        yield context.inputs
        return
    for inputs, _ in context.train:
        yield Inputs.of(inputs).map(lambda x: x.to(context.device))


ADJUSTER = Adjuster("drop_blocks", "leave out whole residual blocks, least important first", plan)
