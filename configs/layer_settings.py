"""The settings of adjusters that change how layers compute: ranks, number formats, sparsity."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field, model_validator

from .base_settings import ByLayer
from .facts import Facts

if TYPE_CHECKING:
    from typing_extensions import Self


class LowRank(ByLayer):
    """Split layers into smaller ones of a lower rank, where those measure faster here."""

    facts: ClassVar[Facts] = Facts(needs_float=True, searched="layers")

    max_error: float = Field(
        default=0.02,
        ge=0,
        lt=1,
        description="Most of the variance of a layer's outputs that may be lost; it sets the rank.",
    )
    form: Literal["auto", "channels", "spatial", "tucker"] = Field(
        default="auto",
        description="How convolutions are split: k x k to few channels and 1x1; k x 1 and 1 x k; "
        "1x1, k x k and 1x1; auto takes what is fastest here.",
    )
    rank: int | None = Field(
        default=None,
        ge=1,
        description="One rank for all layers, instead of `max_error`; no timing.",
    )
    ratio: float | None = Field(
        default=None,
        gt=0,
        le=1,
        description="Or a share of each layer's full rank; it isn't timed layer by layer either.",
    )
    examples: int = Field(
        default=256, ge=1, description="Training examples that show what the layers give."
    )

    @model_validator(mode="after")
    def _one_rank(self) -> LowRank:
        if self.rank is not None and self.ratio is not None:
            raise ValueError("it must not set both `rank` and `ratio`")
        return self

    def rough(self) -> Self:
        return self.model_copy(update={"examples": min(self.examples, 64)})

    def is_open(self) -> bool:
        # Of the forms the search knows the one to few channels.
        return self.rank is self.ratio is None and self.form in ("auto", "channels")


class Quantize(ByLayer):
    """Convolutions and linear layers in int8; kept only where this machine runs it faster."""

    facts: ClassVar[Facts] = Facts(
        changes_format=True, needs_data="by its settings", searched="layers"
    )

    scheme: Literal["int8_static", "int8_dynamic", "int8_weight", "int4_weight"] = Field(
        default="int8_static",
        description="Weights and activations in int8 with ranges from training data, or for linear "
        "layers with ranges computed at run time (dynamic; needs no data), or only weights (a "
        "smaller file), for linear layers also in 4 bits.",
    )
    group: int = Field(
        default=128,
        ge=16,
        description="Inputs of a layer that share a scale under `int4_weight`; the largest divisor "
        "of their number up to it.",
    )
    calibration: Literal["auto", "minmax", "percentile", "mse"] = Field(
        default="auto",
        description="How an activation's range is chosen: all values, 99.99 % of them, or the "
        "range with the least rounding error; auto: what leaves the outputs nearest.",
    )
    examples: int = Field(
        default=256, ge=1, description="Training examples that the ranges are taken from."
    )
    equalize: bool = Field(
        default=False,
        description="First scale the channels between layers to ranges alike (exact in float).",
    )
    rounding: Literal["nearest", "adaptive"] = Field(
        default="nearest",
        description="Each weight to its nearest integer, or all of a layer's so that its outputs "
        "on training data change least, its bias with them (seconds; most useful in 4 bits).",
    )
    bias_correction: bool = Field(
        default=False,
        description="Correct each bias by the layer's mean output error on training data.",
    )
    finetune: float = Field(
        default=0.0,
        ge=0,
        description="Epochs of training with all roundings in place; kept if it is better.",
    )
    keep_float: int = Field(
        default=0, ge=0, description="How many layers, the most sensitive ones, stay in float."
    )

    def restricted_to(self, layers: Iterable[str], **changes: object) -> Self:
        return super().restricted_to(layers, keep_float=0, **changes)

    def rough(self) -> Self:
        rough = {"examples": 1, "calibration": "minmax", "rounding": "nearest"}
        rough |= {"bias_correction": False}
        return self.model_copy(update=rough)

    def needs_data(self) -> bool:
        return self.scheme == "int8_static"

    def is_open(self) -> bool:
        # Integer weights alone are for the size of the file first: asked for, they are made.
        return not self.scheme.endswith("_weight")


class Precision(ByLayer):
    """Compute in half precision where this machine has arithmetic for it; faster, not exact.

    Layers that `match` and `skip` leave out compute in float32.
    """

    facts: ClassVar[Facts] = Facts(changes_format=True, searched="the whole model")

    dtype: Literal["bfloat16", "float16", "float32"] = Field(
        default="bfloat16", description="The number format to compute in; float32 changes nothing."
    )


class SparsityTwoFour(ByLayer):
    """Zero two of every four weights of linear layers, where a GPU runs that faster."""

    examples: int = Field(
        default=128,
        ge=1,
        description="Training examples that the weights which stay are fitted to; without data the "
        "smallest weights go.",
    )
