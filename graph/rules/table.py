"""Every operator the analysis understands, in one table."""

from __future__ import annotations

import operator
from typing import Any

import torch

from ..analysis import Rule
from ..labels import Dims
from . import attention, convolution, elementwise, indexing, norms, recurrent, reshape, shape

aten: Any = torch.ops.aten


def scalar(walk: object, node: object) -> Dims:
    """Size arithmetic has no dimensions."""
    return ()


_UNARY = """relu relu6 silu gelu sigmoid tanh hardtanh hardswish hardsigmoid leaky_relu elu selu
celu mish softplus softsign exp expm1 log log1p log2 sqrt rsqrt neg abs square clamp clamp_min
clamp_max dropout feature_dropout alpha_dropout alias clone contiguous detach detach_ relu_ relu6_
silu_ gelu_ sigmoid_ tanh_ hardtanh_ hardswish_ hardsigmoid_ leaky_relu_ elu_ selu_ mish_ clamp_
dropout_ feature_dropout_ lift_fresh_copy lift_fresh reciprocal sin cos erf log_sigmoid threshold
tanhshrink softshrink hardshrink sign floor ceil round trunc bitwise_not logical_not isnan isinf
isfinite zeros_like ones_like full_like empty_like rand_like masked_fill_ nan_to_num to type_as
_to_copy square_ sqrt_ exp_ neg_ abs_""".split()
_BROADCAST = """add add_ sub sub_ mul mul_ div div_ maximum minimum pow rsub eq ne lt gt le ge
logical_and logical_or logical_xor bitwise_and bitwise_or where masked_fill fmod remainder atan2
floor_divide lerp addcmul addcdiv subtract multiply divide __and__ __or__""".split()
_FRESH = """arange zeros ones full empty scalar_tensor new_zeros new_ones new_full new_empty eye
linspace tensor rand randn _assert_tensor_metadata _assert_scalar sym_constrain_range""".split()
_POOL2D = """adaptive_avg_pool2d avg_pool2d max_pool2d upsample_nearest2d upsample_bilinear2d
upsample_bicubic2d _upsample_nearest_exact2d""".split()
_POOL1D = "adaptive_avg_pool1d avg_pool1d max_pool1d upsample_nearest1d upsample_linear1d".split()
_POOL3D = """adaptive_avg_pool3d avg_pool3d max_pool3d upsample_nearest3d
upsample_trilinear3d""".split()
_SHAPE: dict[str, Rule] = {
    "cat": shape.cat,
    "concat": shape.cat,
    "concatenate": shape.cat,
    "stack": indexing.stack,
    "flatten": reshape.reshape,
    "unflatten": reshape.reshape,
    "view": reshape.reshape,
    "reshape": reshape.reshape,
    "_unsafe_view": reshape.reshape,
    "permute": shape.permute,
    "transpose": shape.transpose,
    "transpose_": shape.transpose,
    "swapaxes": shape.transpose,
    "t": shape.swap_last,
    "mT": shape.swap_last,
    "numpy_T": shape.reverse,
    "unsqueeze": shape.unsqueeze,
    "squeeze": shape.squeeze,
    "squeeze_": shape.squeeze,
    "mean": shape.reduction(),
    "sum": shape.reduction(),
    "amax": shape.reduction(),
    "amin": shape.reduction(),
    "all": shape.reduction(),
    "any": shape.reduction(),
    "prod": shape.reduction(),
    "argmax": shape.reduction(),
    "argmin": shape.reduction(),
    "logsumexp": shape.reduction(),
    "std": shape.reduction(keep_at=3),
    "var": shape.reduction(keep_at=3),
    "linalg_vector_norm": shape.reduction(dim_at=2, keep_at=3),
    "norm": shape.reduction(dim_at=2, keep_at=3),
}
_INDEXING: dict[str, Rule] = {
    "split_with_sizes": indexing.split,
    "split": indexing.split,
    "unbind": indexing.unbind,
    "select": indexing.select,
    "slice": indexing.slice_,
    "narrow": indexing.slice_,
    "index": indexing.index,
    "index_select": indexing.index_select,
    "gather": indexing.gather,
    "embedding": indexing.embedding,
    "expand": indexing.expand,
    "broadcast_to": indexing.expand,
    "expand_as": elementwise.broadcast,
    "repeat": indexing.repeat,
    "repeat_interleave": indexing.repeat_interleave,
    "roll": indexing.whole_axes,
    "flip": indexing.whole_axes,
    "pad": indexing.pad,
    "constant_pad_nd": indexing.pad,
    "reflection_pad1d": indexing.pad,
    "reflection_pad2d": indexing.pad,
    "replication_pad1d": indexing.pad,
    "replication_pad2d": indexing.pad,
    "pixel_shuffle": indexing.pixel_shuffle,
    "pixel_unshuffle": indexing.pixel_unshuffle,
}
_LAYERS: dict[str, Rule] = {
    "conv1d": convolution.convolution,
    "conv2d": convolution.convolution,
    "conv3d": convolution.convolution,
    "conv_transpose1d": convolution.transposed,
    "conv_transpose2d": convolution.transposed,
    "conv_transpose3d": convolution.transposed,
    "linear": convolution.linear,
    "batch_norm": convolution.batch_norm,
    "layer_norm": norms.layer_norm,
    "rms_norm": norms.layer_norm,
    "group_norm": norms.group_norm,
    "instance_norm": norms.instance_norm,
    "prelu": convolution.prelu,
    "matmul": attention.matmul,
    "bmm": attention.matmul,
    "mm": attention.matmul,
    "addmm": attention.addmm,
    "baddbmm": attention.addmm,
    "einsum": attention.einsum,
    "scaled_dot_product_attention": attention.scaled_dot_product_attention,
    "softmax": attention.softmax,
    "log_softmax": attention.softmax,
    "_softmax": attention.softmax,
    "cumsum": attention.softmax,
    "glu": shape.glu,
    "lstm": recurrent.recurrent,
    "gru": recurrent.recurrent,
    "rnn_tanh": recurrent.recurrent,
    "rnn_relu": recurrent.recurrent,
    "sym_size": scalar,
}


# `transpose.Dimname` and the like name dimensions by words, which export never emits.
_SKIPPED = ("Dimname", "names", "DimnameList")


def _table() -> dict[Any, Rule]:
    rules: dict[str, Rule] = dict.fromkeys(_UNARY, elementwise.unary)
    rules |= dict.fromkeys(_BROADCAST, elementwise.broadcast)
    rules |= dict.fromkeys(_FRESH, shape.fresh)
    rules |= dict.fromkeys(_POOL1D, shape.pool1d)
    rules |= dict.fromkeys(_POOL2D, shape.pool2d)
    rules |= dict.fromkeys(_POOL3D, shape.pool3d)
    rules |= _SHAPE | _INDEXING | _LAYERS
    table: dict[Any, Rule] = {}
    for name, rule in rules.items():
        packet = getattr(aten, name, None)
        if packet is None:
            continue
        for overload in packet.overloads():
            if overload.split("_")[-1] != "out" and not any(w in overload for w in _SKIPPED):
                table[getattr(packet, overload)] = rule
    table |= {
        aten.max.dim: shape.reduction(results=2),
        aten.min.dim: shape.reduction(results=2),
        aten.max.other: elementwise.broadcast,
        aten.min.other: elementwise.broadcast,
        operator.getitem: indexing.getitem,
    }
    for function in (operator.mul, operator.add, operator.sub, operator.floordiv, operator.truediv):
        table[function] = scalar
    return table


RULES: dict[Any, Rule] = _table()
