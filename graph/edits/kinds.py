"""The kinds of edits: every change of a graph as data. graph/edits/apply.py carries them out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias


@dataclass(frozen=True)
class Slice:
    """Keep the indices `keep` of axis `dim` of a parameter or buffer."""

    param: str
    dim: int
    keep: tuple[int, ...]


@dataclass(frozen=True)
class Constant:
    """Set a size that the graph holds as a number: argument `path` of `node`."""

    node: str
    path: tuple[int, ...]
    value: int


@dataclass(frozen=True)
class ScaleParameter:
    """Multiply a parameter by `factor`."""

    param: str
    factor: float


@dataclass(frozen=True)
class FoldBatchNorm:
    """Fold the batch norm `node` into the convolution or linear before it (eval statistics)."""

    node: str


@dataclass(frozen=True)
class ToChannelsLast:
    """Lay 4-d input `node` out as NHWC; convolutions carry the layout on."""

    node: str


@dataclass(frozen=True)
class ZeroSubnormals:
    """Set subnormal values of a float32 parameter to zero."""

    param: str


@dataclass(frozen=True)
class DropBlock:
    """Leave out the residual block that ends in the sum `node`: its input `skip` goes on alone."""

    node: str
    skip: str


@dataclass(frozen=True)
class Equalize:
    """Divide the outputs of layer `node` by `factors`, and multiply the weights that read them."""

    node: str
    factors: tuple[float, ...]


@dataclass(frozen=True)
class QuantizeWeight:
    """Hold the weight of layer `node` as int8, one scale per output channel.

    With `group` in 4 bits, a scale and a least value for each so many inputs of a linear layer.
    """

    node: str
    group: int | None = None


@dataclass(frozen=True)
class QuantizeInput:
    """Round argument `place` of `node` to `levels` + 1 steps of `scale`.

    `zero_point` is the step that stands for 0.
    """

    node: str
    place: int
    scale: float
    zero_point: int
    levels: int


@dataclass(frozen=True)
class QuantizeDynamic:
    """Round argument `place` of `node` to 2 `half` + 1 steps, their size taken at every call."""

    node: str
    place: int
    half: int


@dataclass(frozen=True)
class Cast:
    """Compute in half precision `dtype`; inputs and outputs of the model stay float32, and so do
    the layers `keep`, by their nodes."""

    dtype: str
    keep: tuple[str, ...] = ()


@dataclass(frozen=True)
class Factor:
    """Split layer `node` into two of rank `rank`."""

    node: str
    rank: int


@dataclass(frozen=True)
class SpatialFactor:
    """Split convolution `node` in two along the axes of its kernel."""

    node: str
    rank: int


@dataclass(frozen=True)
class TuckerFactor:
    """Let convolution `node` work between few channels, `ranks` in and out, 1x1 around it."""

    node: str
    ranks: tuple[int, int]


@dataclass(frozen=True)
class Resize:
    """Make what comes in at `nodes` smaller first: images to `size` (height, width), sequences to
    the first `size` = (length,)."""

    nodes: tuple[str, ...]
    size: tuple[int, ...]


@dataclass(frozen=True)
class Sparsify:
    """Set the two smallest of every four weights along the inputs of `param` [out, in] to zero."""

    param: str


Edit: TypeAlias = (
    Slice
    | Constant
    | ScaleParameter
    | FoldBatchNorm
    | ToChannelsLast
    | ZeroSubnormals
    | DropBlock
    | Equalize
    | QuantizeWeight
    | QuantizeInput
    | QuantizeDynamic
    | Cast
    | Factor
    | SpatialFactor
    | TuckerFactor
    | Resize
    | Sparsify
)
# By the key in manifests, which stays whatever the class is called: written artifacts must load.
KINDS: dict[str, Callable[..., Edit]] = {
    "Slice": Slice,
    "Constant": Constant,
    "Scale": ScaleParameter,
    "FoldBatchNorm": FoldBatchNorm,
    "ChannelsLast": ToChannelsLast,
    "FlushSubnormals": ZeroSubnormals,
    "DropBlock": DropBlock,
    "Equalize": Equalize,
    "QuantizeWeight": QuantizeWeight,
    "QuantizeInput": QuantizeInput,
    "QuantizeAnew": QuantizeDynamic,
    "Cast": Cast,
    "Factor": Factor,
    "SeparateSpace": SpatialFactor,
    "SeparateChannels": TuckerFactor,
    "Resize": Resize,
    "Sparsify": Sparsify,
}
