"""Residual blocks that the search may leave out, and the groups that live only in them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

from torch.fx import GraphModule

from ..adjusters.drop_blocks import droppable
from ..adjusters.methods.block_loss import block_losses
from ..adjusters.plan import Context
from ..configs.settings import DropBlocks
from ..graph.analysis.groups import Group
from ..graph.blocks import Block, branch_of
from ..graph.capture import node_named
from ..graph.train_mode import NoGradient


@dataclass(frozen=True)
class DroppableBlock:
    """`inner`: prunable groups whose parameters are all of the block; `nodes`: its branch."""

    block: Block
    inner: tuple[str, ...]
    nodes: tuple[str, ...]
    loss: float


@dataclass(frozen=True)
class DroppableBlocks:
    """Blocks that can be left out, `most` of them at a time. `reason`: why none is, if none is."""

    blocks: tuple[DroppableBlock, ...] = ()
    most: int = 0
    reason: str = "channels cost less accuracy for the time that they save"

    @classmethod
    def of(
        cls, context: Context, groups: Iterable[Group], settings: DropBlocks | None
    ) -> DroppableBlocks:
        """None are where `settings` (of a `drop_blocks` step that leaves the count open) is None.

        Of nested blocks only the innermost count. A block without a group of its own is left as
        it is: nothing stands for it in the knapsack.
        """
        if settings is None:
            return cls()
        if context.train is None:
            return cls(reason="what a block is worth is found out on training data; there is none")
        blocks, groups = droppable(context, settings), list(groups)
        inner = {b.total: _inner(b, groups) for b in blocks}
        kept = [b for b in blocks if inner[b.total]]
        if not kept:
            return cls(reason="no residual block holds channels of its own that may go")
        try:
            losses = block_losses(context, kept)
        except NoGradient as error:
            return cls(reason=f"what a block is worth is not known: {error}")
        rows = (
            DroppableBlock(b, inner[b.total], _branch(context.module, b), losses[b.total])
            for b in kept
        )
        return cls(tuple(rows), max(1, int(settings.max_share * len(blocks))))

    @cached_property
    def lead_of_group(self) -> Mapping[str, str]:
        """By inner group, the first group of its block, which stands for the block."""
        return {g: d.inner[0] for d in self.blocks for g in d.inner}

    @cached_property
    def lead_of_node(self) -> Mapping[str, str]:
        return {n: d.inner[0] for d in self.blocks for n in d.nodes}


def _branch(module: GraphModule, block: Block) -> tuple[str, ...]:
    total, skip = node_named(module, block.total), node_named(module, block.skip)
    assert total is not None and skip is not None
    inside = {total, *branch_of(total, skip)}
    return tuple(n.name for n in module.graph.nodes if n in inside)


def _inner(block: Block, groups: Iterable[Group]) -> tuple[str, ...]:
    own = set(block.params)
    return tuple(g.name for g in groups if all(m.param in own for m in g.members))
