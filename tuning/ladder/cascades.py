"""Cascades of each rung with the top, calibrated on the examples that judge."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ...core.errors import UsageError
from ...core.ladder_record import CascadeRecord
from ...data.load import Data
from ...data.subset import FirstBatches
from ...profiling.accuracy import in_eval_mode, outputs_on, split_batch
from ...profiling.gate import working
from ...runtime.ladder.margins import calibrate

EXAMPLES, SECONDS = 4096, 30.0
MAX_DROP = 0.005  # of the accuracy, with 95 % confidence
NO_DATA = "there is no data to calibrate it on"
NO_CLASSES = "the outputs are not logits of classes, so there is no margin between them"


def cascades_of(
    modules: Sequence[nn.Module], data: Data | None, device: str
) -> tuple[tuple[CascadeRecord, ...], str]:
    """One of each lower rung with the top, that loses at most half a point; or why there are
    none."""
    if data is None:
        return (), NO_DATA
    found = _logits(modules, data, device)
    if found is None:
        return (), NO_CLASSES
    rows, labels = found
    try:
        made = [
            calibrate(low, 0, rows[low], rows[0], labels, max_drop=MAX_DROP)
            for low in range(1, len(rows))
        ]
    except UsageError as error:
        return (), str(error)
    return tuple(made), ""


def _logits(
    modules: Sequence[nn.Module], data: Data, device: str
) -> tuple[list[Tensor], Tensor] | None:
    """Of all modules on the same examples, and the labels; None where they are not classes."""
    rows: list[list[Tensor]] = [[] for _ in modules]
    labels: list[Tensor] = []
    some = FirstBatches(data.held_out, EXAMPLES, working() + SECONDS, working)
    with torch.inference_mode():
        for index, batch in enumerate(some):
            inputs, targets = split_batch(batch, index)
            if targets.dim() != 1 or targets.is_floating_point():
                return None
            for row, module in zip(rows, modules, strict=True):
                with in_eval_mode(module):
                    outputs = outputs_on(module, inputs, index, device)
                if outputs.dim() != 2 or outputs.shape[1] < 2 or not outputs.is_floating_point():
                    return None
                row.append(outputs.cpu())
            labels.append(targets.cpu())
    if not labels:
        return None
    return [torch.cat(row) for row in rows], torch.cat(labels)


def worth_it(
    cascades: Sequence[CascadeRecord], medians_ms: Sequence[float]
) -> tuple[CascadeRecord, ...]:
    """The one of least mean latency, if that is below the top's. One that sends nothing up is none:
    its low rung alone is as good."""

    def mean_ms(cascade: CascadeRecord) -> float:
        return medians_ms[cascade.low] + cascade.share * medians_ms[cascade.high]

    faster = [c for c in cascades if c.share and mean_ms(c) < medians_ms[c.high]]
    return (min(faster, key=mean_ms),) if faster else ()
