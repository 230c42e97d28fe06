"""Leave out whole residual blocks, the least important first; the skip connection remains."""

from __future__ import annotations

from collections.abc import Iterator
from fnmatch import fnmatchcase
from itertools import islice
from typing import Any

import torch
from torch.fx import Interpreter, Node

from ..core.calling import Inputs
from ..core.records import LeftAlone
from ..graph.blocks import Block, residual_blocks, sums_of_branches
from ..graph.edits import DropBlock
from .plan import Adjuster, Context, Plan

BATCHES = 4


def plan(context: Context, settings: Any) -> Plan:
    """Drop `count` blocks that change what passes through them least."""
    blocks = residual_blocks(context.module)
    skipped = [b for b in blocks if any(fnmatchcase(b.name, p) for p in settings.skip)]
    free = [b for b in blocks if b not in skipped]
    chosen: list[Block] = []
    if settings.count:
        scores = influence(context, free)
        chosen = sorted(free, key=lambda b: scores[b.total])[: settings.count]
    left = [LeftAlone(b.name, "`skip` names it") for b in skipped]
    left += [
        LeftAlone(n.name, "both sides of this sum are computed apart, so neither can go")
        for n in sums_of_branches(context.module)
    ]
    if not blocks:
        left.insert(
            0, LeftAlone("blocks", "the graph has no sum whose one side comes from the other")
        )
    return Plan(tuple(DropBlock(b.total, b.skip) for b in chosen), tuple(left))


def influence(context: Context, blocks: list[Block]) -> dict[str, float]:
    """By name of its sum: mean over batches of |block(x) - x|^2 / |block(x)|^2, without units.

    Near zero where a block passes on what it gets (Block Influence of Men et al. 2024, ShortGPT,
    eq. 1, with the relative distance in place of the cosine). Example inputs stand in for data.
    """
    totals = {b.total: 0.0 for b in blocks}
    seen = 0
    with torch.no_grad():
        for inputs in islice(_batches(context), BATCHES):
            values = _Values(context, blocks).of(inputs)
            for block in blocks:
                before, after = values[block.skip].double(), values[block.total].double()
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


class _Values(Interpreter):
    """Runs the graph and keeps a copy of the values before and after each block."""

    def __init__(self, context: Context, blocks: list[Block]) -> None:
        super().__init__(context.module, garbage_collect_values=True)
        self._wanted = {name for b in blocks for name in (b.total, b.skip)}
        self._kept: dict[str, torch.Tensor] = {}

    def of(self, inputs: Inputs) -> dict[str, torch.Tensor]:
        names = [n.name for n in self.graph.nodes if n.op == "placeholder"]
        self.run(*inputs.in_order(names), enable_io_processing=False)
        return self._kept

    def run_node(self, n: Node) -> Any:
        if n.op == "call_module":  # torch.export's input checks, not part of the model
            return None
        value = super().run_node(n)
        if n.name in self._wanted:
            self._kept[n.name] = value.clone()  # in-place activations would overwrite it
        return value


ADJUSTER = Adjuster("drop_blocks", "leave out whole residual blocks, least important first", plan)
