"""Abilities of this machine's packed kernels: each is tried once on a few numbers.

Which activations and sums a kernel fuses depends on the processor, on torch and on the number
format, and is written down nowhere: torch's own pattern matcher hits the same errors. An answer
that is not the plain operators' counts as none.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ..operators import mkldnn, onednn
from .fusing import Activation, Scalars

Post = tuple[str, Scalars, str]  # name, numbers and algorithm of an activation, as kernels take it
NONE: Post = ("none", (), "")
SOME, EACH = 4, 16  # groups that stand for all counts, and for one of each channel
_BATCH, _IN, _OUT, _SIDE = 2, 16, 16, 5
_CLOSE = {torch.float32: 1e-3, torch.bfloat16: 0.1, torch.float16: 0.02}
_ONE = [1, 1]
_SCALE, _ZERO, _STEP = 0.05, 32, 0.02  # of integer inputs (up to 63: no kernel overflows), weights

_PLAIN: dict[str, Callable[..., Tensor]] = {
    "none": lambda x: x, "relu": F.relu, "sigmoid": torch.sigmoid, "tanh": torch.tanh,
    "hardswish": F.hardswish, "swish": F.silu, "hardtanh": F.hardtanh,
}  # fmt: skip


def groups_like(groups: int, channels: int) -> int:
    """The count to ask for: 1, SOME or EACH."""
    return 1 if groups == 1 else EACH if groups == channels else SOME


def post_of(act: Activation | None) -> Post:
    return NONE if act is None else (act.name, act.scalars, act.algorithm)


@cache
def convolves(dtype: torch.dtype, groups: int, post: Post = NONE, summed: bool = False) -> bool:
    """True if a prepacked convolution takes `post`, after the sum with a residual if `summed`."""
    x, other = (_drawn(_BATCH, n, _SIDE, _SIDE).to(dtype) for n in (_IN, _OUT))
    sizes = (_ONE, _ONE, _ONE, groups)
    weight = _weight(_OUT, _IN // groups, 3, 3).to(dtype)
    name, scalars, algorithm = post

    def called(layout: torch.memory_format) -> Any:
        laid = x.to(memory_format=layout)
        packed = mkldnn._reorder_convolution_weight(weight.to(memory_format=layout), *sizes)
        if not summed:
            return mkldnn._convolution_pointwise(
                laid, packed, None, *sizes, name, list(scalars), algorithm
            )
        rest = (None, [], None) if post == NONE else (name, list(scalars), algorithm)
        added = other.to(memory_format=layout)
        return mkldnn._convolution_pointwise.binary(
            laid, added, packed, None, *sizes, "add", 1.0, *rest
        )

    wanted = F.conv2d(x.float(), weight.float(), padding=1, groups=groups)
    wanted = _plain(wanted + other.float() if summed else wanted, post)
    layouts = (torch.contiguous_format, torch.channels_last)
    return all(_gives(partial(called, at), wanted, _CLOSE.get(dtype, 0.0)) for at in layouts)


@cache
def multiplies(dtype: torch.dtype, post: Post = NONE, summed: bool = False) -> bool:
    """True if a prepacked linear layer takes `post`, or the sum with a residual (not both)."""
    drawn = (_drawn(_BATCH, _IN), _drawn(_BATCH, _OUT), _weight(_OUT, _IN))
    x, other, weight = (t.to(dtype) for t in drawn)
    name, scalars, algorithm = post

    def called() -> Any:
        packed = mkldnn._reorder_linear_weight(weight, len(x))
        if summed:
            return mkldnn._linear_pointwise.binary(x, other, packed, None, "add")
        return mkldnn._linear_pointwise(x, packed, None, name, list(scalars), algorithm)

    if summed and post != NONE:
        return False
    wanted = F.linear(x.float(), weight.float())
    wanted = _plain(wanted + other.float() if summed else wanted, post)
    return _gives(called, wanted, _CLOSE.get(dtype, 0.0))


@cache
def convolves_int8(groups: int, post: Post = NONE, summed: bool = False) -> bool:
    """`convolves` on integers, with floats out and with integers out."""
    x = _integers(_BATCH, _IN, _SIDE, _SIDE).to(memory_format=torch.channels_last)
    weight = _weights(_OUT, _IN // groups, 3, 3)
    other = _integers(_BATCH, _OUT, _SIDE, _SIDE).to(memory_format=torch.channels_last)
    scales, zeros = torch.full((_OUT,), _STEP), torch.zeros(_OUT, dtype=torch.int64)
    sizes = (_ONE, _ONE, _ONE, groups)

    def called(integers: bool) -> Any:
        packed = onednn.qconv_prepack(weight, scales, _SCALE, _ZERO, *sizes, list(x.shape))
        output = (_SCALE, _ZERO, torch.uint8) if integers else (1.0, 0, torch.float32)
        start = (x, _SCALE, _ZERO, packed, scales, zeros)
        end = (post[0], list(post[1]), post[2])
        if not summed:
            return onednn.qconv2d_pointwise(*start, None, *sizes, *output, *end)
        residual = other.clone() if integers else _floats(other)
        rest = (*output, *((_SCALE, _ZERO) if integers else (1.0, 0)), "sum", 1.0, *end)
        return onednn.qconv2d_pointwise.binary(*start, residual, None, *sizes, *rest)

    wanted = F.conv2d(_floats(x), weight.float() * _STEP, padding=1, groups=groups)
    wanted = _plain(wanted + _floats(other) if summed else wanted, post)
    return _gives(lambda: called(False), wanted, 1e-2) and _gives(
        lambda: _floats(called(True)), _clipped(wanted), 1.1 * _SCALE
    )


@cache
def multiplies_int8(post: Post = NONE) -> bool:
    """`multiplies` on integers, with floats out and with integers out."""
    x, weight = _integers(_BATCH, _IN), _weights(_OUT, _IN)
    scales, zeros = torch.full((_OUT,), _STEP), torch.zeros(_OUT, dtype=torch.int64)

    def called(*output: object) -> Any:
        packed = onednn.qlinear_prepack(weight, list(x.shape))
        start, end = (x, _SCALE, _ZERO, packed, scales, zeros), (post[0], list(post[1]), post[2])
        return onednn.qlinear_pointwise(*start, None, *output, *end)

    wanted = _plain(F.linear(_floats(x), weight.float() * _STEP), post)
    return _gives(lambda: called(1.0, 0, torch.float32), wanted, 1e-2) and _gives(
        lambda: _floats(called(_SCALE, _ZERO, torch.uint8)), _clipped(wanted), 1.1 * _SCALE
    )


@cache
def sums_whole_bytes() -> bool:
    """True if sums of two products of 8 bits fit; they saturate in 16 bits on older processors.

    What the processor says is not enough: oneDNN may be told to use less of it.
    """
    x, weight = torch.full((_BATCH, 64), 255, dtype=torch.uint8), torch.full((64, 64), 127)
    scales, zeros = torch.ones(64), torch.zeros(64, dtype=torch.int64)

    def linear() -> Any:
        packed = onednn.qlinear_prepack(weight.to(torch.int8), list(x.shape))
        start, output = (x, 1.0, 0, packed, scales, zeros), (1.0, 0, torch.float32)
        return onednn.qlinear_pointwise(*start, None, *output, "none", [], "")

    def convolution() -> Any:
        image, kernel = x.view(_BATCH, 64, 1, 1), weight.to(torch.int8).view(64, 64, 1, 1)
        image, sizes = image.to(memory_format=torch.channels_last), (_ONE, [0, 0], _ONE, 1)
        packed = onednn.qconv_prepack(kernel, scales, 1.0, 0, *sizes, list(image.shape))
        start, output = (image, 1.0, 0, packed, scales, zeros), (1.0, 0, torch.float32)
        return onednn.qconv2d_pointwise(*start, None, *sizes, *output, "none", [], "").flatten(1)

    wanted = torch.full((_BATCH, 64), 64 * 255 * 127.0)
    return _gives(linear, wanted, 1.0) and _gives(convolution, wanted, 1.0)


def _gives(called: Callable[[], Tensor], wanted: Tensor, close: float) -> bool:
    try:
        with torch.inference_mode(False), torch.no_grad():
            result: Tensor = called().float()
    except Exception:  # kernels refuse in words of their own, each in others
        return False
    return result.shape == wanted.shape and bool((result - wanted).abs().max() <= close)


def _plain(x: Tensor, post: Post) -> Tensor:
    name, scalars, algorithm = post
    return F.gelu(x, approximate=algorithm) if name == "gelu" else _PLAIN[name](x, *scalars)


def _drawn(*sizes: int) -> Tensor:
    """Numbers from -2 to 2 without a random generator, whose state is the user's."""
    return (torch.frac(torch.arange(math.prod(sizes)) * 0.618034) * 4 - 2).view(sizes)


def _weight(*sizes: int) -> Tensor:
    return _drawn(*sizes) * 0.3


def _integers(*sizes: int) -> Tensor:
    return ((_drawn(*sizes) + 2) * 15).to(torch.uint8)


def _weights(*sizes: int) -> Tensor:
    return (_drawn(*sizes) * 6).to(torch.int8)


def _floats(x: Tensor) -> Tensor:
    return (x.float() - _ZERO) * _SCALE


def _clipped(x: Tensor) -> Tensor:
    return x.clamp(-_ZERO * _SCALE, (255 - _ZERO) * _SCALE)
