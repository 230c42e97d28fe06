"""The `--inputs` flag, and the flags that say the same as a recipe and win over it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, get_args

from pydantic import ValidationError

from ..core.errors import UsageError
from .flags import MAX_DROP, MINUTES
from .recipe import DataSpec, Dtype, InputSpec, ModelSpec, Prefer, Recipe, make_step
from .references import DATA, MODELS, allowed, parse_reference, regular_expression
from .sentences import as_text, nearest

# A mapping, so that a text that was looked up has the literal type.
DTYPES: dict[str, Dtype] = {name: name for name in get_args(Dtype)}
_LIMITS = re.compile(r"(-?[0-9]{1,18})\.\.(-?[0-9]{1,18})", re.ASCII)
BATCH_SAID = ":batch="
_AXIS = re.compile(r"[0-9]{1,2}", re.ASCII)
_SIZE = re.compile(r"(?:([0-9]{1,9})\.\.)?([0-9]{1,9})(\.\.([0-9]{1,9})?)?", re.ASCII)


def parse_inputs(text: str) -> tuple[InputSpec, ...]:
    """`[name=]1x3x224x224[:float32[:LOW..HIGH]][:batch=AXIS]`, joined by commas. Raises UsageError.

    A size that varies is LOW..SIZE..HIGH, or `SIZE..` for any; calls are measured at SIZE. The
    dtype defaults to float32; the range of integers to 0..1. The axis of the batch is found
    where it isn't given; `batch=none` is for what has none.
    """
    return tuple(_one(part.strip(), text) for part in text.split(","))


def _one(part: str, whole: str) -> InputSpec:
    plain, batch = _without_batch(part)
    name, _, rest = plain.rpartition("=")
    shape, colon, rest = rest.partition(":")
    dtype, ranged, limits = rest.partition(":")
    parts = [_SIZE.fullmatch(size) for size in shape.split("x")]
    if not all(part and bool(part[4]) == bool(part[1]) for part in parts):
        raise UsageError(
            f"`--inputs` {as_text(whole)}: {as_text(part)} is not a shape; "
            "write sizes joined by `x`, such as `1x3x224x224:float32`."
        )
    sizes = tuple(int(part[2]) for part in parts if part)
    varies = {str(n): f"{p[1] or 1}..{p[4] or ''}" for n, p in enumerate(parts) if p and p[3]}
    if 0 in sizes:
        raise UsageError(f"`--inputs`: {as_text(part)} has a size of 0; sizes must be at least 1.")
    dtype = dtype if colon else "float32"
    if dtype not in DTYPES:
        raise UsageError(
            f"`--inputs`: {as_text(part)} has the unknown dtype {as_text(dtype)}; "
            f"{nearest(dtype, DTYPES)}"
        )
    try:
        return InputSpec(
            shape=sizes,
            dtype=DTYPES[dtype],
            name=name.strip() or None,
            range=_range(limits) if ranged else None,
            batch=batch,
            varies=varies,
        )
    except ValidationError as error:
        reason = str(error.errors()[0]["msg"]).removeprefix("Value error, ")
        raise UsageError(f"`--inputs`: {as_text(part)}: {reason}.") from error


def _without_batch(part: str) -> tuple[str, int | Literal["none"] | None]:
    plain, said, axis = part.rpartition(BATCH_SAID)
    if not said:
        return part, None
    if axis == "none":
        return plain, "none"
    if not _AXIS.fullmatch(axis):
        raise UsageError(
            f"`--inputs`: {as_text(part)} has the batch {as_text(axis)}; write the axis that it "
            "lies along, such as `batch=1`, or `batch=none`."
        )
    return plain, int(axis)


def _range(text: str) -> tuple[int, int]:
    match = _LIMITS.fullmatch(text)
    if match is None:
        raise UsageError(
            f"`--inputs`: {as_text(text)} is not a range; write `LOW..HIGH`, such as `0..30521`."
        )
    return int(match[1]), int(match[2])


def with_flags(
    recipe: Recipe,
    *,
    model: str | None = None,
    data: str | None = None,
    inputs: str | None = None,
    ignore: Sequence[str] = (),
    cwd: Path,
) -> Recipe:
    """The recipe with the flags' values in place of its own. Raises UsageError.

    A flag's file is relative to the current folder, a recipe's to the recipe: so it is stored
    whole. `model.args` belong to the factory they were written for and go with it. Patterns of
    `ignore` come on top of the recipe's."""
    update: dict[str, object] = {}
    if model is not None:
        update["model"] = ModelSpec(factory=_absolute("--model", model, MODELS, cwd))
    if data is not None:
        update["data"] = _data(recipe, _absolute("--data", data, DATA, cwd))
    if inputs is not None:
        update["inputs"] = parse_inputs(inputs)
    if ignore:
        for pattern in ignore:
            check_pattern(f"`--ignore` is {as_text(pattern)}", pattern)
        update["ignore"] = tuple(dict.fromkeys((*recipe.ignore, *ignore)))
    return recipe.model_copy(update=update)


def check_pattern(where: str, pattern: str) -> None:
    """Raises UsageError where it is not a regular expression."""
    try:
        regular_expression(pattern)
    except ValueError as error:
        raise UsageError(f"{where}; {error}.") from error


def _data(recipe: Recipe, factory: str) -> DataSpec:
    if recipe.data is None:
        return DataSpec(factory=factory)
    return recipe.data.model_copy(update={"factory": factory})


def _absolute(flag: str, factory: str, kinds: dict[str, str], cwd: Path) -> str:
    reference = parse_reference(factory, kinds)
    if reference is None:
        raise UsageError(f"`{flag}` is {as_text(factory)}; {allowed(kinds)}.")
    return reference.below(cwd.absolute()).text()


def with_limits(
    recipe: Recipe,
    max_drop: float | None = None,
    prefer: str | None = None,
    minutes: float | None = None,
) -> Recipe:
    """The recipe with flags in place of its `limits`. Raises UsageError."""
    MAX_DROP.check(max_drop)
    MINUTES.check(minutes)
    if prefer is not None and prefer not in get_args(Prefer):
        raise UsageError(f"`--prefer` is {as_text(prefer)}; it must be `target` or `accuracy`.")
    given = {"max_drop": max_drop, "prefer": prefer, "minutes": minutes}
    update = {name: value for name, value in given.items() if value is not None}
    return recipe.model_copy(update={"limits": recipe.limits.model_copy(update=update)})


def with_input_size(recipe: Recipe, text: str) -> Recipe:
    """The recipe with `--input-size` as its first step, in place of its own. Raises UsageError."""
    sides = text.split("x")
    if len(sides) > 2 or not all(s.isascii() and s.isdigit() and int(s) for s in sides):
        raise UsageError(
            f"`--input-size` is {as_text(text)}; write a number such as 160, or 160x200 for "
            "height x width."
        )
    numbers = tuple(int(side) for side in sides)
    step = make_step("input_size", size=numbers if len(numbers) == 2 else numbers[0])
    rest = tuple(s for s in recipe.adjust if s.name != "input_size")
    return recipe.model_copy(update={"adjust": (step, *rest)})
