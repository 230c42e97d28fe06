"""Every operator the analysis understands, in one table."""

from __future__ import annotations

import operator

from ...operators import aten
from ..labels import Dims
from ..walk import Rule
from . import (
    attention,
    convolution,
    elementwise,
    indexing,
    norms,
    padding,
    patches,
    recurrent,
    reshape,
    shape,
    spectral,
)


def scalar(walk: object, node: object) -> Dims:
    """Size arithmetic has no dimensions."""
    return ()


_UNARY = """relu relu6 silu gelu sigmoid tanh hardtanh hardswish hardsigmoid leaky_relu elu selu
celu mish softplus softsign exp expm1 log log1p log2 sqrt rsqrt neg abs square clamp clamp_min
clamp_max dropout feature_dropout alpha_dropout alias clone contiguous detach detach_ relu_ relu6_
silu_ gelu_ sigmoid_ tanh_ hardtanh_ hardswish_ hardsigmoid_ leaky_relu_ elu_ selu_ mish_ clamp_
dropout_ feature_dropout_ lift_fresh_copy lift_fresh reciprocal sin cos erf log_sigmoid threshold
tanhshrink softshrink hardshrink sign floor ceil round trunc bitwise_not logical_not isnan isinf
isfinite zeros_like ones_like full_like empty_like rand_like randn_like nan_to_num to type_as
_to_copy square_ sqrt_ exp_ neg_ abs_ tan asin acos atan sinh cosh asinh acosh atanh erfc erfinv
logit sinc frac sgn signbit rrelu real imag conj angle fill fill_ zero zero_ positive""".split()
_BROADCAST = """add add_ sub sub_ mul mul_ div div_ maximum minimum pow rsub eq ne lt gt le ge
logical_and logical_or logical_xor bitwise_and bitwise_or where masked_fill fmod remainder atan2
floor_divide lerp addcmul addcdiv subtract multiply divide __and__ __or__ masked_fill_ hypot
logaddexp xlogy heaviside fmax fmin arctan2 true_divide float_power complex polar copy
copy_""".split()
_FRESH = """arange zeros ones full empty scalar_tensor new_zeros new_ones new_full new_empty eye
linspace tensor rand randn _assert_tensor_metadata _assert_scalar sym_constrain_range""".split()
# By the number of dimensions they pool over or resize.
_POOL = (
    """adaptive_avg_pool1d avg_pool1d max_pool1d upsample_nearest1d upsample_linear1d
    _upsample_nearest_exact1d""".split(),
    """adaptive_avg_pool2d avg_pool2d max_pool2d upsample_nearest2d upsample_bilinear2d
    upsample_bicubic2d _upsample_nearest_exact2d _upsample_bilinear2d_aa
    _upsample_bicubic2d_aa""".split(),
    """adaptive_avg_pool3d avg_pool3d max_pool3d upsample_nearest3d upsample_trilinear3d
    _upsample_nearest_exact3d""".split(),
)
_POOL_INDEXED = (
    "adaptive_max_pool1d max_pool1d_with_indices".split(),
    "adaptive_max_pool2d max_pool2d_with_indices fractional_max_pool2d".split(),
    "adaptive_max_pool3d max_pool3d_with_indices fractional_max_pool3d".split(),
)
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
    "view_as": reshape.reshape_as,
    "reshape_as": reshape.reshape_as,
    "permute": shape.permute,
    "transpose": shape.transpose,
    "transpose_": shape.transpose,
    "movedim": shape.movedim,
    "moveaxis": shape.movedim,
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
    "std_mean": shape.reduction(keep_at=3, results=2),
    "var_mean": shape.reduction(keep_at=3, results=2),
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
    "slice_scatter": indexing.slice_scatter,
    "index": indexing.index,
    "index_select": indexing.index_select,
    "gather": indexing.gather,
    "embedding": indexing.embedding,
    "expand": indexing.expand,
    "broadcast_to": indexing.expand,
    "expand_as": elementwise.broadcast,
    "repeat": indexing.repeat,
    "tile": indexing.repeat,
    "repeat_interleave": indexing.repeat_interleave,
    "roll": indexing.whole_axes,
    "flip": indexing.whole_axes,
    "pad": padding.pad,
    "constant_pad_nd": padding.constant,
    "reflection_pad1d": padding.mirrored,
    "reflection_pad2d": padding.mirrored,
    "replication_pad1d": padding.mirrored,
    "replication_pad2d": padding.mirrored,
    "reflection_pad3d": padding.mirrored,
    "replication_pad3d": padding.mirrored,
    "topk": shape.ranked(2),
    "sort": shape.ranked(1),
}
_PATCHES: dict[str, Rule] = {
    "pixel_shuffle": patches.pixel_shuffle,
    "pixel_unshuffle": patches.pixel_unshuffle,
    "channel_shuffle": patches.channel_shuffle,
    "native_channel_shuffle": patches.channel_shuffle,
    "im2col": patches.im2col,
    "col2im": patches.col2im,
    "unfold": patches.unfold,
    "grid_sampler": patches.grid_sampler,
    "grid_sampler_2d": patches.grid_sampler,
    "grid_sampler_3d": patches.grid_sampler,
}
_SPECTRAL: dict[str, Rule] = {
    **{f"fft_{kind}fft": spectral.transform([-1]) for kind in ("", "i", "r", "ir", "h", "ih")},
    **{f"fft_{kind}fft2": spectral.transform([-2, -1]) for kind in ("", "i", "r", "ir")},
    **{f"fft_{kind}fftn": spectral.transform(None) for kind in ("", "i", "r", "ir")},
    "view_as_complex": spectral.as_complex,
    "view_as_real": spectral.as_real,
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
    "cumprod": attention.softmax,
    "logcumsumexp": attention.softmax,
    "glu": shape.glu,
    "lstm": recurrent.recurrent,
    "gru": recurrent.recurrent,
    "rnn_tanh": recurrent.recurrent,
    "rnn_relu": recurrent.recurrent,
    "sym_size": scalar,
}


# `transpose.Dimname` and the like name dimensions by words, which export never emits.
_SKIPPED = ("Dimname", "names", "DimnameList")


def _table() -> dict[object, Rule]:
    rules: dict[str, Rule] = dict.fromkeys(_UNARY, elementwise.unary)
    rules |= dict.fromkeys(_BROADCAST, elementwise.broadcast)
    rules |= dict.fromkeys(_FRESH, shape.fresh)
    for spatial_dims, (pools, indexed) in enumerate(zip(_POOL, _POOL_INDEXED, strict=True), 1):
        rules |= dict.fromkeys(pools, shape.pool(spatial_dims))
        rules |= dict.fromkeys(indexed, shape.pool(spatial_dims, results=2))
    rules |= _SHAPE | _INDEXING | _PATCHES | _SPECTRAL | _LAYERS
    table: dict[object, Rule] = {}
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
        aten.max.default: shape.reduction(),
        aten.min.default: shape.reduction(),
        **{
            getattr(aten, n).Tensor: elementwise.broadcast
            for n in ("clamp", "clamp_min", "clamp_max")
        },
        operator.getitem: indexing.getitem,
    }
    for function in (operator.mul, operator.add, operator.sub, operator.floordiv, operator.truediv):
        table[function] = scalar
    return table


RULES: dict[object, Rule] = _table()
