"""Tensors of a file, checked before any operator runs on them: form, rank, and how much they claim.

A few bytes can claim a tensor of any size: by strides of zero, by a rank that makes each operator
crawl, by strides that overflow.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor
from torch.nn.parameter import is_lazy

from ..core.json_values import JsonObject

MAX_DIMENSIONS = 64  # more than any operator of torch takes
EXPANDED = 1 << 28  # bytes that a tensor may claim beyond those it has (`expand`)
MAX_PARTS = 200_000  # containers and values that are looked at
STRIDED = 7  # in torch's schema
PACKED = re.compile(r"float4.*|bits.*|u?int[1-7]")  # several values in a byte, or none of a kind


def unfit(tensor: Tensor) -> str:
    """The reason why it is not a dense tensor of numbers, to end a sentence; empty if it is one."""
    if is_lazy(tensor):
        return "has no size yet (of a lazy layer)"
    if tensor.is_nested:
        return "is nested"
    if tensor.is_quantized:
        return "is quantized"
    if tensor.layout != torch.strided:
        return "is sparse"
    if tensor.is_meta:
        return "is on the device `meta`, so it has a shape and no values"
    kind = str(tensor.dtype).removeprefix("torch.")
    if PACKED.fullmatch(kind):
        return f"is of dtype {kind}, in which torch does not compute"
    if tensor.dim() > MAX_DIMENSIONS:
        return f"has {tensor.dim()} dimensions; {MAX_DIMENSIONS} are the most"
    size = tensor.untyped_storage().nbytes()
    if tensor.numel() * tensor.element_size() > size + EXPANDED:
        return f"claims {tensor.numel()} values, but has {size} bytes"
    return ""


def check_layout(meta: JsonObject, size: int) -> None:
    """Do shape, strides and dtype in a program's JSON lie within `size` bytes? Else ValueError."""
    from torch._export.serde.serialize import _SERIALIZE_TO_TORCH_DTYPE as DTYPES  # slow to import

    dtype = DTYPES.get(meta.get("dtype"))
    if dtype is None or meta.get("layout") != STRIDED:
        raise ValueError("a weight of it is not a dense tensor of numbers")
    if (meta.get("device") or {}).get("type") == "meta":
        raise ValueError("a weight of it is on the device `meta`, so it has a shape and no values")
    shape, strides = ([_whole(n) for n in meta.get(key, ())] for key in ("sizes", "strides"))
    offset = _whole(meta.get("storage_offset"))
    if len(shape) != len(strides):
        raise ValueError("a weight of it has other strides than dimensions")
    count, last = 1, offset
    for n, stride in zip(shape, strides, strict=True):
        count, last = count * n, last + max(0, n - 1) * stride
    if count and (last + 1) * dtype.itemsize > size:
        raise ValueError(f"a weight of it claims more than the {size} bytes that it has")
    if count * dtype.itemsize > size + EXPANDED:
        raise ValueError(f"a weight of it claims {count} values, but has {size} bytes")


def _whole(number: object) -> int:
    value = number.get("as_int") if isinstance(number, Mapping) else None
    if type(value) is not int or value < 0:
        raise ValueError("a weight of it has a shape that is not of whole numbers")
    return value


def tensors_in(value: object) -> Iterator[Tensor]:
    """Those within dicts, lists and tuples. Raises ValueError where there is no end of them.

    Lists that hold another twice, again and again, make few bytes an endless tree.
    """
    waiting, parts = [value], 0
    while waiting:
        part = waiting.pop()
        parts += 1
        if parts > MAX_PARTS:
            raise ValueError("it holds more values than any call takes")
        if isinstance(part, Tensor):
            yield part
        elif isinstance(part, (Mapping, list, tuple)):
            waiting += part.values() if isinstance(part, Mapping) else part
