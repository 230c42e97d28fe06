"""Every operator the analysis understands, in one table."""

from __future__ import annotations

import operator
from typing import Any

import torch

from ..analysis import Rule
from ..labels import Dims
from . import convolution, elementwise, shape

aten: Any = torch.ops.aten


def scalar(walk: object, node: object) -> Dims:
    """Size arithmetic has no dimensions."""
    return ()


_UNARY = """relu relu6 silu gelu sigmoid tanh hardtanh hardswish hardsigmoid leaky_relu elu selu
celu mish softplus softsign exp log sqrt rsqrt neg abs square clamp clamp_min clamp_max dropout
feature_dropout alpha_dropout alias clone contiguous detach detach_ relu_ relu6_ silu_
gelu_ sigmoid_ tanh_ hardtanh_ hardswish_ hardsigmoid_ leaky_relu_ elu_ selu_ mish_ clamp_
dropout_ feature_dropout_ lift_fresh_copy lift_fresh reciprocal sin cos erf log_sigmoid""".split()
_BROADCAST = """add add_ sub sub_ mul mul_ div div_ maximum minimum pow rsub""".split()
_POOL2D = """adaptive_avg_pool2d adaptive_max_pool2d avg_pool2d max_pool2d upsample_nearest2d
upsample_bilinear2d""".split()
_SHAPE = {
    "cat": shape.cat,
    "concat": shape.cat,
    "flatten": shape.reshape,
    "view": shape.reshape,
    "reshape": shape.reshape,
    "_unsafe_view": shape.reshape,
    "permute": shape.permute,
    "transpose": shape.transpose,
    "unsqueeze": shape.unsqueeze,
    "squeeze": shape.squeeze,
    "squeeze_": shape.squeeze,
    "mean": shape.mean,
    "sum": shape.mean,
    "amax": shape.mean,
}
_LAYERS = {
    "conv1d": convolution.convolution,
    "conv2d": convolution.convolution,
    "conv3d": convolution.convolution,
    "linear": convolution.linear,
    "batch_norm": convolution.batch_norm,
    "adaptive_avg_pool1d": shape.pool1d,
    "avg_pool1d": shape.pool1d,
    "max_pool1d": shape.pool1d,
    "to": elementwise.unary,
    "sym_size": scalar,
}


# `transpose.Dimname` and the like name dimensions by words, which export never emits.
_SKIPPED = ("Dimname", "names", "out", "DimnameList")


def _table() -> dict[Any, Rule]:
    rules: dict[str, Rule] = dict.fromkeys(_UNARY, elementwise.unary)
    rules |= dict.fromkeys(_BROADCAST, elementwise.broadcast)
    rules |= dict.fromkeys(_POOL2D, shape.pool2d)
    rules |= _SHAPE | _LAYERS
    table: dict[Any, Rule] = {}
    for name, rule in rules.items():
        packet = getattr(aten, name, None)
        if packet is None:
            continue
        for overload in packet.overloads():
            if not any(word in overload for word in _SKIPPED):
                table[getattr(packet, overload)] = rule
    for function in (operator.mul, operator.add, operator.sub, operator.floordiv, operator.truediv):
        table[function] = scalar
    return table


RULES: dict[Any, Rule] = _table()
