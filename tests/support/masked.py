"""What pruning must equal: the unpruned graph with all that the dropped units own set to zero."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence

import torch
from modelspeed.graph.analysis.groups import Analysis, keep_units
from modelspeed.graph.capture import tensor_at
from modelspeed.graph.edits.apply import apply
from torch.fx import GraphModule


def pruned(
    module: GraphModule, analysis: Analysis, dropped: Mapping[str, Sequence[int]]
) -> GraphModule:
    return apply(copy.deepcopy(module), keep_units(analysis, dropped))


def ignoring(
    module: GraphModule, analysis: Analysis, dropped: Mapping[str, Sequence[int]]
) -> GraphModule:
    masked = copy.deepcopy(module)
    for group in analysis.prunable:
        for member in group.members:
            gone = [i for u in dropped.get(group.name, ()) for i in member.indices[u]]
            with torch.no_grad():
                tensor_at(masked, member.param).index_fill_(
                    member.dim, torch.tensor(gone).long(), 0
                )
    return masked
