"""Operators that ONNX has and ATen lacks: marks in a graph, which torch's exporter translates.

    rounded    QuantizeLinear, DequantizeLinear     graph/edits/quantization.py
    floats     DequantizeLinear of an initializer   graph/edits/integer_weights.py, 8 bits

The exporter has no translation for `fake_quantize` (pytorch #167063), and arithmetic it writes as
it stands: no runtime finds the integers in that.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor

from ..core.extras import extra

NAMESPACE, OPSET = "modelspeed_onnx", 18  # the least that torch writes
BYTE = 255


@cache
def _library() -> torch.library.Library:
    """Kept for as long as the process lives: with it the operators go."""
    library: Any = torch.library.Library(NAMESPACE, "DEF")  # type: ignore[no-untyped-call]
    library.define("rounded(Tensor x, float scale, int zero_point, int levels) -> Tensor")
    library.define("floats(Tensor integers, Tensor scale, int axis) -> Tensor")
    # Nothing is computed with marks; shapes are all that the exporter asks for.
    library.impl("rounded", lambda x, *_: torch.empty_like(x), "Meta")
    library.impl("floats", _floats_shape, "Meta")
    return library  # type: ignore[no-any-return]


def _floats_shape(integers: Tensor, scale: Tensor, axis: int) -> Tensor:
    return torch.empty_like(integers, dtype=torch.float32)


def rounded_mark() -> Any:
    """x, scale, zero point, levels, as of `Rounded`."""
    _library()
    return getattr(torch.ops, NAMESPACE).rounded.default


def floats_mark() -> Any:
    """int8 or int32, scales [n], the dimension of size n that they are along."""
    _library()
    return getattr(torch.ops, NAMESPACE).floats.default


def translations() -> dict[Callable[..., Any], Callable[..., Any]]:
    """By mark, for the exporter. Raises MissingExtra."""
    return {rounded_mark(): _rounded, floats_mark(): _floats}


def _opset() -> Any:
    return getattr(extra("onnxscript", "onnx"), f"opset{OPSET}")


def _constant(value: Any, dtype: str) -> Any:
    import numpy as np

    ir = extra("onnx_ir", "onnx")
    return _opset().Constant(value=ir.tensor(np.asarray(value, dtype)))


def _rounded(x: Any, scale: float, zero_point: int, levels: int) -> Any:
    """Levels below 255 are cut off as integers, so that the pair stays around its neighbors."""
    op, step, zero = _opset(), _constant(scale, "float32"), _constant(zero_point, "uint8")
    integers = op.QuantizeLinear(x, step, zero)
    if levels < BYTE:
        integers = op.Min(integers, _constant(levels, "uint8"))
    return op.DequantizeLinear(integers, step, zero)


def _floats(integers: Any, scale: Any, axis: int) -> Any:
    """Zero points are all 0, and written: without them ONNX Runtime leaves Gemm in floats."""
    import numpy as np

    zeros = _constant(np.zeros(int(scale.shape[0])), str(integers.dtype.numpy()))
    return _opset().DequantizeLinear(integers, scale, zeros, axis=axis)
