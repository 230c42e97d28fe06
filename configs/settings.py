"""The settings of each adjuster, in one explicit dict. Ratios are fractions, times in ms."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PlainValidator, WithJsonSchema, model_validator

# Strict: `epochs: "2"` is a typing slip to report, not a number to guess.
CONFIG = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class Settings(BaseModel):
    """What every adjuster's settings share: frozen, no unknown keys, no silent conversion."""

    model_config = CONFIG


def _skip_or_ratio(value: Any) -> Any:
    if value == "skip":
        return value
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if number and 0 <= value < 1:
        return float(value)
    raise ValueError("it must be `skip` or a ratio from 0 to less than 1")


SkipOrRatio = Annotated[
    float | Literal["skip"],
    PlainValidator(_skip_or_ratio),
    WithJsonSchema(
        {"anyOf": [{"const": "skip"}, {"type": "number", "minimum": 0, "exclusiveMaximum": 1}]}
    ),
]


class FoldBatchnorm(Settings):
    """Fold each batch norm into the convolution or linear layer before it (lossless)."""


class ChannelsLast(Settings):
    """Store images and convolution weights channels-last where this machine is faster so."""


class FlushSubnormals(Settings):
    """Set weights too small for a normal float32 to zero: CPUs compute them 5-50 times slower."""


class DropDead(Settings):
    """Remove units that no layer reads or that are zero for every input (lossless)."""


class Prune(Settings):
    """Remove the least important channel groups. `ratio` is fixed, `max_ratio` a bound."""

    ratio: float | None = Field(
        default=None,
        ge=0,
        lt=1,
        description="Fixed fraction of each group's units to remove; needed under `apply`.",
    )
    max_ratio: float = Field(
        default=0.8,
        ge=0,
        lt=1,
        description="Most that may be removed from a group; `tune` chooses up to it.",
    )
    importance: Literal["magnitude", "fisher", "compensated"] = Field(
        default="compensated",
        description="How units are ranked: weight norm, rise in loss from gradients, or what rises "
        "after the remaining weights have made up for it.",
    )
    round_to: int | None = Field(
        default=None,
        ge=1,
        description="Keep widths a multiple of this; null means measured on this machine.",
    )
    min_units: int = Field(default=1, ge=1, description="Fewest units a group keeps.")
    through_norms: bool = Field(
        default=False,
        description="Also prune what layer norms run over, such as a transformer's residual width.",
    )
    match: dict[str, SkipOrRatio] = Field(
        default_factory=dict,
        description="Layer name pattern (`*` and `?`) to `skip` or a ratio; the first match wins.",
    )

    def rule_for(self, layer: str) -> float | Literal["skip"] | None:
        """The value of the first pattern that matches `layer`, or None."""
        return next((v for pattern, v in self.match.items() if fnmatchcase(layer, pattern)), None)


class DropBlocks(Settings):
    """Leave out whole residual blocks, the least important first."""

    count: int | None = Field(
        default=None,
        ge=0,
        description="How many blocks to leave out; null: `tune` weighs them against channels.",
    )
    max_share: float = Field(
        default=0.75, gt=0, le=1, description="Most of the blocks that `tune` may leave out."
    )
    skip: tuple[str, ...] = Field(
        default=(), description="Block name patterns (`*` and `?`) to leave as they are."
    )


class Compensate(Settings):
    """Refit the weights to the original's layer outputs in closed form, and keep what is better."""

    examples: int = Field(
        default=256, ge=1, description="Training examples that the weights are fitted on."
    )
    ridge: float = Field(
        default=0.005, gt=0, description="Pull towards the old weights, in mean squared inputs."
    )


class LowRank(Settings):
    """Split layers into two of a lower rank, where two measure faster here than one."""

    max_error: float = Field(
        default=0.02,
        ge=0,
        lt=1,
        description="Most of the variance of a layer's outputs that may be lost; it sets the rank.",
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
    match: tuple[str, ...] = Field(
        default=("*",), description="Layer name patterns (`*` and `?`) to split."
    )
    skip: tuple[str, ...] = Field(
        default=(), description="Layer name patterns (`*` and `?`) to leave whole."
    )

    @model_validator(mode="after")
    def _one_rank(self) -> LowRank:
        if self.rank is not None and self.ratio is not None:
            raise ValueError("it must not set both `rank` and `ratio`")
        return self


class Quantize(Settings):
    """Convolutions and linear layers in int8; kept only where this machine runs it faster."""

    scheme: Literal["int8_static", "int8_dynamic", "int8_weight", "int4_weight"] = Field(
        default="int8_static",
        description="Weights and activations in int8 with ranges from training data, or for linear "
        "layers with ranges of the moment (needs no data), or weights alone (a smaller file), for "
        "linear layers also in 4 bits.",
    )
    group: int = Field(
        default=128,
        ge=16,
        description="Inputs of a layer that share a scale under `int4_weight`; the largest divisor "
        "of their number up to it.",
    )
    calibration: Literal["minmax", "percentile", "mse"] = Field(
        default="mse",
        description="How an activation's range is chosen: all values, 99.99 % of them, or the "
        "range with the least rounding error.",
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
        description="Take the mean error of each layer's outputs on training data out of its bias.",
    )
    finetune: float = Field(
        default=0.0,
        ge=0,
        description="Epochs of training with all roundings in place; kept if it is better.",
    )
    keep_float: int = Field(
        default=0, ge=0, description="How many layers, the most sensitive ones, stay in float."
    )
    match: tuple[str, ...] = Field(
        default=("*",), description="Layer name patterns (`*` and `?`) to quantise."
    )
    skip: tuple[str, ...] = Field(
        default=(), description="Layer name patterns (`*` and `?`) to leave in float."
    )


class Precision(Settings):
    """Compute in half precision where this machine has arithmetic for it; faster, not exact."""

    dtype: Literal["bfloat16", "float16", "float32"] = Field(
        default="bfloat16", description="The number format to compute in; float32 changes nothing."
    )


class Scale(Settings):
    """Multiply the weights of chosen layers by a factor. This changes no latency."""

    factor: float = Field(description="What the weights are multiplied by.")
    match: tuple[str, ...] = Field(
        default=(), description="Layer name patterns (`*` and `?`) to scale."
    )
    first: int | None = Field(
        default=None, ge=1, description="Scale the first N layers with weights, instead of `match`."
    )

    @model_validator(mode="after")
    def _one_choice(self) -> Scale:
        if bool(self.match) == (self.first is not None):
            raise ValueError("it must name its layers by either `match` or `first`, one of the two")
        return self


class Finetune(Settings):
    """Re-estimate batch-norm statistics, train briefly, and keep the result if it is better."""

    epochs: float = Field(
        default=2.0, ge=0, description="Passes over the training data; fractions are allowed."
    )
    lr: float | None = Field(
        default=None,
        gt=0,
        description="Peak learning rate (AdamW, cosine schedule); null tries three and takes the "
        "one that lowers the held-out loss most.",
    )
    bn_batches: int = Field(
        default=20, ge=0, description="Batches that re-estimate batch-norm statistics first."
    )
    distill: bool = Field(default=True, description="Also learn from the original's outputs.")
    temperature: float = Field(default=4.0, gt=0, description="Softens the logits to distil.")
    features: float = Field(
        default=0.0,
        ge=0,
        description="Weight of what layers read, compared with the original; 0 leaves it out, "
        "since it brought nothing on four nets.",
    )
    mixed: bool = Field(
        default=True, description="Train in bfloat16 (autocast) where that is measured faster."
    )
    alpha: float = Field(
        default=0.5, ge=0, le=1, description="Share of the distillation loss; the rest is the task."
    )
    label_smoothing: float = Field(
        default=0.0, ge=0, lt=1, description="Smoothing of the task's labels."
    )
    patience: int | None = Field(
        default=4,
        ge=1,
        description="Stop after this many of 8 held-out evaluations without a gain; null: never.",
    )


SETTINGS: dict[str, type[Settings]] = {
    "fold_batchnorm": FoldBatchnorm,
    "channels_last": ChannelsLast,
    "flush_subnormals": FlushSubnormals,
    "drop_dead": DropDead,
    "prune": Prune,
    "drop_blocks": DropBlocks,
    "compensate": Compensate,
    "low_rank": LowRank,
    "quantize": Quantize,
    "precision": Precision,
    "scale": Scale,
    "finetune": Finetune,
}
