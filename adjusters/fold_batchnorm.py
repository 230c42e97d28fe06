"""Fold every eval-mode batch norm into the convolution or linear layer before it."""

from __future__ import annotations

import torch

from ..configs.settings import FoldBatchnorm
from ..core.records import LeftAlone
from ..graph.edits.apply import FoldBatchNorm
from ..graph.edits.folding import foldable
from .plan import Adjuster, Context, Plan


def plan(context: Context, settings: FoldBatchnorm) -> Plan:
    del settings
    norms = [n for n in context.module.graph.nodes if n.target is torch.ops.aten.batch_norm.default]
    good = [n for n in norms if foldable(n)]
    left = tuple(
        LeftAlone(n.name, "no convolution or linear layer feeds only this batch norm")
        for n in norms
        if n not in good
    )
    return Plan(tuple(FoldBatchNorm(n.name) for n in good), left)


ADJUSTER = Adjuster("fold_batchnorm", "fold batch norms into the layer before them", plan)
