"""Multiply-accumulates and bytes of one op, from the shapes it was run with."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from torch import Tensor

# Ops put their weight in different places (oneDNN's fused residual comes before it), so it is found
# by its name in the op's schema.
WEIGHT_NAMES = ("weight", "W", "qw")
CONVOLUTIONS = (
    *("conv1d", "conv2d", "conv3d", "convolution", "_convolution"),
    *("_convolution_pointwise", "_convolution_pointwise_"),
    *("qconv_pointwise", "qconv2d_pointwise"),
)
TRANSPOSED = ("conv_transpose1d", "conv_transpose2d", "conv_transpose3d")
PRODUCTS = {
    "linear": 0,
    "_linear_pointwise": 0,
    "_mkl_linear": 0,
    "qlinear_pointwise": 0,
    "mm": 0,
    "bmm": 0,
    "matmul": 0,
    "linear8": 0,  # our own kernels for integer weights
    "linear4": 0,
    "addmm": 1,
    "baddbmm": 1,
}


def op_name(target: object) -> str:
    """`aten.conv2d.default` -> `conv2d`."""
    packet = getattr(target, "overloadpacket", None)
    return str(getattr(packet or target, "__name__", target))


def macs_of(target: object, args: tuple[Any, ...], result: object) -> int:
    """Multiply-accumulates of the product ops; 0 for all others."""
    name = op_name(target)
    out = _first_tensor(result)
    if out is None:
        return 0
    if name in CONVOLUTIONS:
        return _convolution(target, name, args, out)
    if name in TRANSPOSED:
        return int(args[0].numel() * math.prod(args[1].shape[1:]))
    if name in PRODUCTS and isinstance(args[PRODUCTS[name]], Tensor):
        return int(out.numel() * args[PRODUCTS[name]].shape[-1])
    if name == "scaled_dot_product_attention":
        query, key, value = args[:3]
        pairs = math.prod(query.shape[:-1]) * key.shape[-2]
        return int(pairs * (query.shape[-1] + value.shape[-1]))
    return 0


def bytes_of(args: object, result: object) -> int:
    """Bytes of all input, weight and output tensors, each read or written once."""
    return sum(t.numel() * t.element_size() for t in (*_tensors(args), *_tensors(result)))


def shape_of(args: object, result: object) -> str:
    """`1x16x8x8 -> 1x32x8x8`: first input and first output."""
    return " -> ".join(
        "x".join(map(str, t.shape)) or "scalar"
        for t in (_first_tensor(args), _first_tensor(result))
        if t is not None
    )


def _weight_index(target: object) -> int:
    schema = getattr(target, "_schema", None)
    names = [argument.name for argument in schema.arguments] if schema else []
    return next((i for i, name in enumerate(names) if name in WEIGHT_NAMES), 1)


def _convolution(target: object, name: str, args: tuple[Any, ...], out: Tensor) -> int:
    weight = args[_weight_index(target)]
    if name in ("convolution", "_convolution") and args[6]:
        return int(args[0].numel() * math.prod(weight.shape[1:]))
    # oneDNN's prepacked grouped weights carry the groups as an extra leading dimension.
    first = 2 if weight.dim() == out.dim() + 1 else 1
    return int(out.numel() * math.prod(weight.shape[first:]))


def _first_tensor(value: object) -> Tensor | None:
    return next(_tensors(value), None)


def _tensors(value: object) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (tuple, list)):
        for item in value:
            yield from _tensors(item)
    elif isinstance(value, dict):
        yield from _tensors(list(value.values()))
