"""The recipe: *what* to do, as validated frozen models. *How on this machine* is `machine.py`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, Field, model_validator
from pydantic.json_schema import SkipJsonSchema

from ..core.json_values import JsonObject
from ..core.span import Span, spans_to_json
from . import flags as f
from .base_settings import CONFIG, Settings, setting
from .references import DATA, FILE, MODELS, allowed, parse_reference, regular_expression
from .settings import SETTINGS

Dtype = Literal[
    "float32", "float16", "bfloat16", "float64", "int64", "int32", "uint8", "bool"
]  # fmt: skip
Prefer = Literal["target", "accuracy"]
JudgeData = Literal["auto", "half", "train"]
# The names of `profiling.metrics.METRICS`, which imports torch and lies above this room.
METRICS = ("accuracy", "top5", "mse", "mae")
_AXIS = re.compile(r"[0-9]{1,2}", re.ASCII)
LIBRARY_METRIC = "torchmetrics:"


def _function(text: str) -> bool:
    reference = parse_reference(text, {})
    return reference is not None and reference.kind == FILE


def _model(text: str) -> str:
    if parse_reference(text, MODELS) is None:
        raise ValueError(allowed(MODELS))
    return text


def _data(text: str) -> str:
    if parse_reference(text, DATA) is None:
        raise ValueError(allowed(DATA))
    return text


def _whole_number(value: object) -> object:
    # To Python `True == 1 == 1.0`, and a Literal takes all three.
    if type(value) is not int:
        raise ValueError("it must be 1")
    return value


def _metric(text: str) -> str:
    library = text.startswith(LIBRARY_METRIC) and text.removeprefix(LIBRARY_METRIC).isidentifier()
    if text not in METRICS and not library and not _function(text):
        raise ValueError(
            f"it must be one of {', '.join(METRICS)}, a function as `FILE.py:NAME`, or "
            "`torchmetrics:NAME`"
        )
    return text


class ModelSpec(BaseModel):
    """The way to build the model if the checkpoint holds only weights."""

    model_config = CONFIG
    factory: Annotated[str, AfterValidator(_model)] = setting(f.MODEL, ...)
    args: JsonObject = Field(default_factory=dict, description="Keyword arguments of the factory.")


class InputSpec(BaseModel):
    """One tensor the model takes."""

    model_config = CONFIG
    shape: tuple[Annotated[int, Field(ge=1)], ...] = Field(
        min_length=1, description="Sizes of an example input."
    )
    dtype: Dtype = Field(default="float32", description="Element type.")
    name: str | None = Field(
        default=None, description="Keyword it is passed as; without one it is passed by place."
    )
    range: tuple[int, int] | None = Field(
        default=None, description="Lowest and highest valid value of integers, such as token ids."
    )
    batch: Annotated[int, Field(ge=0)] | Literal["none"] | None = Field(
        default=None,
        description="Axis of the batch, from 0, or `none` for what has none (a table, a scalar); "
        "found by running the model where it isn't said.",
    )

    varies: dict[str, str] = Field(
        default={},
        description="Other sizes that the artifact is to take, by axis: `LOW..HIGH`, or `LOW..`.",
    )

    def spans(self) -> dict[int, Span]:
        return {int(axis): Span.parse(text) for axis, text in self.varies.items()}

    def entry(self) -> JsonObject:
        """The entry of a job's inputs."""
        plain = self.model_dump(mode="json", exclude_none=True, exclude={"varies"})
        return plain | ({"varies": spans_to_json(self.spans())} if self.varies else {})

    @model_validator(mode="after")
    def _varies_fits(self) -> InputSpec:
        if not all(_AXIS.fullmatch(axis) for axis in self.varies):
            raise ValueError("`varies` names axes from 0, such as `{1: 1..512}`")
        for axis, span in self.spans().items():
            if axis >= len(self.shape):
                raise ValueError(f"`varies` names axes from 0 to {len(self.shape) - 1}")
            if axis == self.batch:
                raise ValueError(f"`varies` names axis {axis}, the batch, which varies anyway")
            if not span.takes(self.shape[axis]):
                raise ValueError(
                    f"`varies` of axis {axis} is {span.words()}, and the size in `shape` is "
                    f"{self.shape[axis]}"
                )
        return self

    @model_validator(mode="after")
    def _range_fits(self) -> InputSpec:
        if self.name is not None and not self.name.isidentifier():
            raise ValueError("`name` must be a keyword of the model's `forward`")
        if isinstance(self.batch, int) and self.batch >= len(self.shape):
            raise ValueError(f"`batch` is an axis from 0 to {len(self.shape) - 1}, or `none`")
        if self.range is None:
            return self
        if not self.dtype.startswith(("int", "uint")):
            raise ValueError(f"`range` is for integers; the dtype is {self.dtype}")
        if self.range[0] > self.range[1]:
            raise ValueError("`range` is [lowest, highest]; the first must not be larger")
        return self


class ImageSpec(BaseModel):
    """Preprocessing of an image file before the model sees it: it must be what training did."""

    model_config = CONFIG
    size: Annotated[int, Field(ge=1)] | tuple[Annotated[int, Field(ge=1)], ...] | None = Field(
        default=None, description="Side in pixels, or [height, width]; else that of `inputs`."
    )
    crop: float = Field(
        default=0.875,
        gt=0,
        le=1,
        description="Part of the shorter side that the middle crop keeps.",
    )
    mean: tuple[float, ...] | None = Field(
        default=None, description="Of each channel, for values from 0 to 1; ImageNet's otherwise."
    )
    std: tuple[Annotated[float, Field(gt=0)], ...] | None = Field(
        default=None, description="Of each channel; ImageNet's otherwise."
    )

    @model_validator(mode="after")
    def _fits(self) -> ImageSpec:
        if isinstance(self.size, tuple) and len(self.size) != 2:
            raise ValueError("`size` must be one number or [height, width]")
        if (self.mean is None) != (self.std is None):
            raise ValueError("`mean` and `std` belong together; give both or neither")
        if self.mean is not None and len(self.mean) != len(self.std or ()):
            raise ValueError("`mean` and `std` must have one number per channel")
        if self.mean is not None and len(self.mean) not in (1, 3):
            raise ValueError("`mean` and `std` must be for 1 channel (gray) or 3 (color)")
        return self


class ColumnSpec(BaseModel):
    """Columns of `datasets:NAME`, where its features do not say what is what."""

    model_config = CONFIG
    inputs: tuple[str, ...] = Field(
        default=(), description="What the model takes; several are passed by their names."
    )
    target: str | None = Field(default=None, description="What it is to tell.")


class AugmentSpec(BaseModel):
    """Random changes of images [batch, channels, height, width] in fine-tuning, drawn again each
    time."""

    model_config = CONFIG
    flip: bool = Field(default=False, description="Mirror every second image, left to right.")
    shift: int = Field(
        default=0, ge=0, description="Move by up to so many pixels; the border is repeated."
    )


class DataSpec(BaseModel):
    """Where training and evaluation data come from."""

    model_config = CONFIG
    factory: Annotated[str, AfterValidator(_data)] = setting(f.DATA, ...)
    metric: Annotated[str, AfterValidator(_metric)] = Field(
        default="accuracy",
        description="`accuracy`, `top5`, `mse`, `mae`, `FILE.py:NAME` or `torchmetrics:NAME`.",
    )
    images: ImageSpec | None = Field(
        default=None, description="Preprocessing of image files; must be what training did."
    )
    columns: ColumnSpec | None = Field(
        default=None, description="Of `datasets:NAME`, if they are ambiguous."
    )
    augment: AugmentSpec | None = Field(
        default=None, description="Random changes of images in fine-tuning."
    )
    batch: int = Field(
        default=32, ge=1, description="Examples of a batch, if no function makes them."
    )
    share: float = Field(
        default=0.2,
        gt=0,
        lt=1,
        description="Part kept for evaluation if the data is one piece.",
    )
    judge: JudgeData = Field(
        default="auto",
        description="The data that decides on the way: a `half` of the evaluation data, which the "
        "report never reads, or held-out `train` data; `auto`: the half, if it is large enough.",
    )
    judge_seed: int = Field(
        default=0, ge=0, lt=2**31, description="Of the choice which evaluation examples judge."
    )


class TargetSpec(BaseModel):
    """The goal; without `ms` and `speedup` only lossless steps are asked for."""

    model_config = CONFIG
    ms: float | None = setting(f.TARGET_MS)
    speedup: float | None = setting(f.TARGET_SPEEDUP)
    fastest: bool = setting(f.FASTEST, False)
    percentile: float = setting(f.PERCENTILE, 50.0)
    batch: int | None = setting(f.BATCH)

    @model_validator(mode="after")
    def _one_of_two(self) -> TargetSpec:
        if self.ms is not None and self.speedup is not None:
            raise ValueError("`ms` and `speedup` exclude each other; keep one")
        if self.fastest and (self.ms is not None or self.speedup is not None):
            raise ValueError("`fastest` is a goal of its own; leave out `ms` and `speedup`")
        return self


class Limits(BaseModel):
    """Limits on the cost of the search."""

    model_config = CONFIG
    max_drop: float = setting(f.MAX_DROP, 0.01)
    prefer: Prefer = setting(f.PREFER, "target")
    minutes: float = setting(f.MINUTES, 20.0)


class Step(BaseModel):
    """One adjuster with its settings, in recipe order."""

    model_config = CONFIG
    name: str
    settings: Settings

    @model_validator(mode="after")
    def _settings_belong_to_name(self) -> Step:
        if type(self.settings) is not SETTINGS.get(self.name):
            raise ValueError(f"`{self.name}` does not take {type(self.settings).__name__}")
        return self


class LeftOut(BaseModel):
    """A step that can't run with what was given; `place` is its own among all steps."""

    model_config = CONFIG
    place: int
    step: Step
    reason: str


class Recipe(BaseModel):
    """A whole recipe. `base` and `source` say where it came from and are never serialized."""

    model_config = CONFIG
    version: Annotated[Literal[1], BeforeValidator(_whole_number)] = Field(
        default=1, description="Format version of this file."
    )
    model: ModelSpec | None = Field(
        default=None, description="Only if the checkpoint holds just weights."
    )
    inputs: tuple[InputSpec, ...] = Field(default=(), description="Example inputs, in call order.")
    ignore: tuple[Annotated[str, AfterValidator(regular_expression)], ...] = setting(f.IGNORE, ())
    data: DataSpec | None = Field(default=None, description="Without data accuracy is unknown.")
    target: TargetSpec = Field(default=TargetSpec(), description="The latency budget.")
    limits: Limits = Field(default=Limits(), description="What the search may cost.")
    adjust: tuple[Step, ...] = Field(default=(), description="Adjusters, run in this order.")
    base: SkipJsonSchema[Path] = Field(default=Path("."), exclude=True)
    source: SkipJsonSchema[str] = Field(default="recipe", exclude=True)
    # Steps that were asked for and are not in `adjust`, since they can't run.
    left_out: SkipJsonSchema[tuple[LeftOut, ...]] = Field(default=(), exclude=True)

    def without(self, reasons: Mapping[int, str]) -> Recipe:
        """The recipe with the steps at these places left out, and why."""
        left_out = tuple(
            LeftOut(place=i, step=self.adjust[i], reason=why) for i, why in reasons.items()
        )
        stay = tuple(s for i, s in enumerate(self.adjust) if i not in reasons)
        return self.model_copy(update={"adjust": stay, "left_out": left_out})

    def every_step(self) -> tuple[tuple[Step, str], ...]:
        """All that was asked for in order, each with why it is left out, empty where it is not."""
        steps = [(step, "") for step in self.adjust]
        for one in sorted(self.left_out, key=lambda one: one.place):
            steps.insert(one.place, (one.step, one.reason))
        return tuple(steps)


def make_step(name: str, **settings: object) -> Step:
    """A step from Python values; raises KeyError or pydantic's ValidationError."""
    return Step(name=name, settings=SETTINGS[name](**settings))
