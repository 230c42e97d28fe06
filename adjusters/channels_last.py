"""Run convolutions in NHWC: the layout most CPU and tensor-core kernels are written for."""

from __future__ import annotations

import torch
from torch import Tensor

from ..configs.settings import ChannelsLast
from ..core.records import LeftAlone
from ..graph.edits.apply import ToChannelsLast
from .plan import Adjuster, Context, Plan


def plan(context: Context, settings: ChannelsLast) -> Plan:
    del settings
    nodes = context.module.graph.nodes
    if not any(n.target is torch.ops.aten.conv2d.default for n in nodes):
        return Plan((), (LeftAlone("channels_last", "the model has no 2-d convolution"),))
    images = [
        n
        for n in nodes
        if n.op == "placeholder"
        and isinstance(n.meta.get("val"), Tensor)
        and n.meta["val"].dim() == 4
        and n.meta["val"].is_floating_point()
    ]
    return Plan(tuple(ToChannelsLast(n.name) for n in images))


ADJUSTER = Adjuster("channels_last", "lay images out as NHWC", plan)
