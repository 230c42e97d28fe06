"""The settings of each adjuster, in one explicit dict. Ratios are fractions, times in ms."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field, PlainValidator, WithJsonSchema, model_validator

from .base_settings import Settings
from .facts import Facts
from .layer_settings import LowRank, Precision, Quantize, SparsityTwoFour


def _skip_or_ratio(value: object) -> float | str:
    if value == "skip":
        return "skip"
    if isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < 1:
        return float(value)
    raise ValueError("it must be `skip` or a ratio from 0 to less than 1")


SkipOrRatio = Annotated[
    float | Literal["skip"],
    PlainValidator(_skip_or_ratio),
    WithJsonSchema(
        {"anyOf": [{"const": "skip"}, {"type": "number", "minimum": 0, "exclusiveMaximum": 1}]}
    ),
]


Side = Annotated[int, Field(ge=1)]


class FoldBatchnorm(Settings):
    """Fold each batch norm into the convolution or linear layer before it (lossless)."""

    facts: ClassVar[Facts] = Facts(lossless=True, once=True)


class ChannelsLast(Settings):
    """Store images and convolution weights channels-last where this machine is faster so."""

    facts: ClassVar[Facts] = Facts(lossless=True, once=True)


class FlushSubnormals(Settings):
    """Set weights too small for a normal float32 to zero: CPUs compute them 5-50 times slower."""

    facts: ClassVar[Facts] = Facts(lossless=True)


class DropDead(Settings):
    """Remove units that no layer reads or that are zero for every input (lossless)."""

    facts: ClassVar[Facts] = Facts(lossless=True)


class InputSize(Settings):
    """Run at a smaller resolution or shorter sequence: the model itself resizes what comes in."""

    facts: ClassVar[Facts] = Facts(first=True)

    size: Side | tuple[Side, Side] | None = Field(
        default=None,
        description="Shorter side in pixels, [height, width], or tokens of a sequence.",
    )
    ratio: float | None = Field(
        default=None, gt=0, le=1, description="Instead: share of each side, or of the length."
    )

    @model_validator(mode="after")
    def _one_size(self) -> InputSize:
        if (self.size is None) == (self.ratio is None):
            raise ValueError("it must set either `size` or `ratio`, one of the two")
        return self


class Prune(Settings):
    """Remove the least important channel groups. `ratio` is fixed, `max_ratio` a bound."""

    facts: ClassVar[Facts] = Facts(needs_float=True, searched="units")

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

    def is_open(self) -> bool:
        return self.ratio is None


class DropBlocks(Settings):
    """Leave out whole residual blocks, the least important first."""

    facts: ClassVar[Facts] = Facts(searched="blocks")

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

    def is_open(self) -> bool:
        return self.count is None


class Compensate(Settings):
    """Refit the weights to the original's layer outputs in closed form, and keep what is better."""

    facts: ClassVar[Facts] = Facts(is_training=True, needs_float=True, needs_data="always")

    examples: int = Field(
        default=256, ge=1, description="Training examples that the weights are fitted on."
    )
    ridge: float = Field(
        default=0.005, gt=0, description="Pull toward the old weights, in mean squared inputs."
    )


class Scale(Settings):
    """Multiply the weights of chosen layers by a factor. This changes no latency."""

    facts: ClassVar[Facts] = Facts(needs_float=True)

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

    facts: ClassVar[Facts] = Facts(is_training=True, needs_float=True, needs_data="always")

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
    mixed: bool = Field(
        default=True, description="Train in bfloat16 (autocast) if that is measured faster."
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
    "input_size": InputSize,
    "flush_subnormals": FlushSubnormals,
    "drop_dead": DropDead,
    "prune": Prune,
    "drop_blocks": DropBlocks,
    "compensate": Compensate,
    "low_rank": LowRank,
    "quantize": Quantize,
    "precision": Precision,
    "sparsity_2_4": SparsityTwoFour,
    "scale": Scale,
    "finetune": Finetune,
}
