"""Set subnormal float32 weights to zero: they make CPU arithmetic 5-50x slower."""

from __future__ import annotations

import torch

from ..configs.settings import FlushSubnormals
from ..graph.capture import tensor_at
from ..graph.edits.apply import ZeroSubnormals
from .plan import Adjuster, Context, Plan, parameter_names


def plan(context: Context, settings: FlushSubnormals) -> Plan:
    del settings
    tiny = torch.finfo(torch.float32).tiny
    edits = []
    for name in parameter_names(context.module):
        tensor = tensor_at(context.module, name)
        # Half precisions have their own ranges; a float16 subnormal is an ordinary weight.
        if tensor.dtype == torch.float32 and bool(((tensor != 0) & (tensor.abs() < tiny)).any()):
            edits.append(ZeroSubnormals(name))
    return Plan(tuple(edits))


ADJUSTER = Adjuster("flush_subnormals", "set subnormal float32 weights to zero", plan)
