"""Accuracy of the loaded artifact beside the original's, or agreement alone without data."""

from __future__ import annotations

from torch import nn

from ..checkpoints.samples import draw_inputs, specs_of
from ..core.model_io import Inputs
from ..core.records import Quality
from ..data.load import Data
from ..profiling.side_by_side import agreement, judge

DRAWN = 64


def quality_of(
    original: nn.Module, final: nn.Module, inputs: Inputs, data: Data | None, device: str, seed: int
) -> Quality:
    """On the evaluation data; random inputs stand in for data that is not there."""
    if data is None:
        specs = specs_of(inputs)
        drawn = [(draw_inputs(specs, seed + number), None) for number in range(DRAWN)]
        same = agreement(original, final, drawn, device)
        return Quality("agreement", False, agreement=same, examples=len(drawn))
    before, after, same, count = judge(original, final, data.eval, data.metric, device)
    return Quality(data.metric_name, True, before, after, same, count)
