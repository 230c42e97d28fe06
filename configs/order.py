"""Orders and settings that can't work, refused before anything is loaded."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Literal

from ..core.errors import ConfigError
from .facts import Facts
from .layer_settings import Quantize
from .recipe import Recipe

Mode = Literal["tune", "apply"]


def check_order(recipe: Recipe, mode: Mode, need_data: bool = True) -> None:
    """Raises ConfigError with every bad order. Flags must be in the recipe (`with_flags`).

    `need_data=False` is for a caller that itself leaves out the steps that want data."""
    rules = [*_repeated(recipe), *_resizes(recipe), *_prunes(recipe, mode), *_after_formats(recipe)]
    if need_data:
        rules += _without_data(recipe)
    if mode == "apply" and not recipe.adjust:
        rules.append("`adjust` has no steps, so there is nothing to apply; add one.")
    if rules:
        raise ConfigError([f"`{recipe.source}`: {rule}" for rule in rules])


def _positions(recipe: Recipe, name: str) -> list[int]:
    return [i for i, step in enumerate(recipe.adjust) if step.name == name]


def _is_open(recipe: Recipe, place: int) -> bool:
    return recipe.adjust[place].settings.is_open()


def _having(recipe: Recipe, fact: Callable[[Facts], object]) -> list[int]:
    return [i for i, step in enumerate(recipe.adjust) if fact(step.settings.facts)]


def _repeated(recipe: Recipe) -> Iterator[str]:
    names = [recipe.adjust[i].name for i in _having(recipe, lambda facts: facts.once)]
    for name in dict.fromkeys(names):
        positions = _positions(recipe, name)
        for i in positions[1:]:
            yield (
                f"`adjust[{i}]` is `{name}` again after `adjust[{positions[0]}]`, which leaves it "
                "nothing to do. Take it out."
            )


def _resizes(recipe: Recipe) -> Iterator[str]:
    for i in _having(recipe, lambda facts: facts.first):
        if i:
            yield (
                f"`adjust[{i}]` is `{recipe.adjust[i].name}` after `adjust[0]`; every other step "
                "decides by what the model does at its size. Put it first, once."
            )


def _without_data(recipe: Recipe) -> Iterator[str]:
    for i, step in enumerate(recipe.adjust) if recipe.data is None else ():
        settings = step.settings
        if isinstance(settings, Quantize) and settings.needs_data():
            yield (
                f"`adjust[{i}]` is `quantize`, but there is no `data` to take the ranges of "
                "activations from. Add `data: {factory: FILE.py:NAME}`, or set "
                "`scheme: int8_weight`."
            )
        elif settings.needs_data():
            yield (
                f"`adjust[{i}]` is `{step.name}`, but there is no `data`; training needs examples. "
                "Add `data: {factory: FILE.py:NAME}` or take the step out."
            )
        elif isinstance(settings, Quantize) and settings.finetune:
            yield (
                f"`adjust[{i}].quantize.finetune` trains, but there is no `data`. Add "
                "`data: {factory: FILE.py:NAME}` or take it out."
            )


def _after_formats(recipe: Recipe) -> Iterator[str]:
    """Weights in another number format can be neither scored nor trained."""
    first = min(_having(recipe, lambda facts: facts.changes_format), default=None)
    for i in _having(recipe, lambda facts: facts.needs_float):
        if first is not None and i > first:
            yield (
                f"`adjust[{i}]` is `{recipe.adjust[i].name}` after `adjust[{first}]`, a "
                f"`{recipe.adjust[first].name}` that leaves no float32 weights. Put it before."
            )


def _prunes(recipe: Recipe, mode: Mode) -> Iterator[str]:
    positions = _positions(recipe, "prune")
    if mode == "tune":
        open_ones = [i for i in _positions(recipe, "drop_blocks") if _is_open(recipe, i)]
        for i in open_ones[1:]:
            yield (
                f"`adjust[{i}]` is a second `drop_blocks` without a `count` after "
                f"`adjust[{open_ones[0]}]`; `tune` chooses one set of blocks. Take it out."
            )
        for i in positions[1:]:
            yield (
                f"`adjust[{i}]` is a second `prune` after `adjust[{positions[0]}]`; `tune` chooses "
                "one set of widths, so it would not know which step to set. Join them, using "
                "`match` for the differences."
            )
        for i in _positions(recipe, "low_rank"):
            if positions and i < positions[0]:
                yield (
                    f"`adjust[{i}]` is `low_rank` before `adjust[{positions[0]}]`, a `prune` that "
                    "`tune` searches widths for: split layers have no channels to prune. "
                    "Put it after."
                )
        return
    for i in _positions(recipe, "drop_blocks"):
        if _is_open(recipe, i):
            yield (
                f"`adjust[{i}].drop_blocks.count` is missing; `apply` runs fixed settings and does "
                "not search. Add `count`, such as 1, or use `tune`."
            )
    for i in positions:
        if _is_open(recipe, i):
            yield (
                f"`adjust[{i}].prune.ratio` is missing; `apply` runs fixed settings and does not "
                "search. Add `ratio`, such as 0.3, or use `tune`."
            )
