"""From flags and files to a job and a recipe."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..configs.inputs import with_flags, with_input_size, with_limits
from ..configs.load import load_recipe, parse_recipe
from ..configs.machine import MachineFlags, resolve_target
from ..configs.order import Mode, check_order
from ..configs.presets import read_preset
from ..configs.recipe import Recipe, Step
from ..core.errors import UsageError
from .load_flags import LoadFlags
from .trust import announce, code_of, folder_of

if TYPE_CHECKING:
    from ..tuning.job import Job

USUAL = "balanced"
NEEDS_DATA = "it needs training data, and there is none; give `--data`"
UNKNOWN_COST = (
    "without data it is not known what accuracy it costs; give `--data`, or allow it with "
    "`--without-data`"
)


def recipe_for(load: LoadFlags, mode: Mode) -> Recipe:
    """The recipe in force: found or named, its steps from a preset if load, flags on top."""
    file = load.recipe_file
    recipe = load_recipe(file) if file else Recipe(adjust=_preset(USUAL), source="the default")
    if load.preset:
        recipe = recipe.model_copy(update={"adjust": _preset(load.preset)})
    elif not recipe.adjust and mode == "tune":
        recipe = recipe.model_copy(update={"adjust": _preset(USUAL)})
    recipe = with_flags(
        recipe, model=load.model, data=load.data, inputs=load.inputs, ignore=load.ignore,
        cwd=Path.cwd(),
    )  # fmt: skip
    recipe = with_limits(recipe, load.max_drop, load.prefer, load.minutes)
    recipe = _resized(recipe, load)
    recipe = recipe.without(_unable(recipe, load, mode))
    if mode == "apply" and recipe.left_out and not recipe.adjust:
        raise UsageError(_none_left(recipe))
    check_order(recipe, mode)
    return recipe


def announce_code(load: LoadFlags, recipe: Recipe) -> None:
    """Announce the code that `recipe` runs and no flag names; see `trust.announce`."""
    file = load.recipe_file
    if file is None:
        return
    code = code_of(recipe, model=load.model is None, data=load.data is None)
    announce([file], code, [folder_of(load.checkpoint)], load.trust_code)


def job_and_recipe(load: LoadFlags, machine: MachineFlags, mode: Mode) -> tuple[Job, Recipe]:
    """The work of a command of that `mode`, once the code that it runs was announced."""
    recipe = recipe_for(load, mode)
    announce_code(load, recipe)
    return job_for(load, recipe, machine), recipe


def _preset(name: str) -> tuple[Step, ...]:
    return parse_recipe(read_preset(name), f"preset {name}", Path.cwd()).adjust


def _unable(recipe: Recipe, load: LoadFlags, mode: Mode) -> dict[int, str]:
    """By place: steps that can't run without data, and why.

    What lossy steps cost is unknown then, so they run only where the user allows it; `tune` does
    what it can without them, `apply` refuses to leave out what it is told to do.
    """
    if recipe.data is not None:
        return {}
    if load.without_data:
        return {i: NEEDS_DATA for i, s in enumerate(recipe.adjust) if s.settings.needs_data()}
    lossy = [i for i, s in enumerate(recipe.adjust) if not s.settings.facts.lossless]
    if mode == "apply" and lossy:
        raise UsageError(_not_allowed(recipe, lossy))
    return dict.fromkeys(lossy, UNKNOWN_COST)


def _not_allowed(recipe: Recipe, lossy: list[int]) -> str:
    names = ", ".join(f"`adjust[{i}]` (`{recipe.adjust[i].name}`)" for i in lossy)
    return (
        f"`{recipe.source}`: {names} may cost accuracy, and there is no data to measure it by; "
        "give `--data`, or allow it with `--without-data`."
    )


def _none_left(recipe: Recipe) -> str:
    names = ", ".join(f"`{step.name}`" for step, _ in recipe.every_step())
    return f"`{recipe.source}`: without data none of its steps runs ({names}); give `--data`."


def _resized(recipe: Recipe, load: LoadFlags) -> Recipe:
    """`--input-size` in place of the recipe's own."""
    if load.input_size is None:
        return recipe
    if recipe.data is None and not load.without_data:
        raise UsageError(
            "`--input-size` costs accuracy, and there is no data to measure it by; give `--data`, "
            "or allow it with `--without-data`."
        )
    return with_input_size(recipe, load.input_size)


def job_for(load: LoadFlags, recipe: Recipe, flags: MachineFlags) -> Job:
    from ..tuning.job import Job

    model = recipe.model
    return Job(
        checkpoint=str(load.checkpoint.absolute()),
        target=resolve_target(recipe, flags, load.target_ms, load.target_speedup, load.fastest),
        factory=model.factory if model else None,
        base=str(recipe.base.absolute()),
        args=dict(model.args) if model else {},
        inputs=tuple(i.entry() for i in recipe.inputs),
        trust_pickle=load.trust_pickle,
        seed=flags.seed,
        ignore=recipe.ignore,
        imports=absolute_files(load.imports),
        batch_given=(flags.batch or recipe.target.batch) is not None,
    )


def absolute_files(imports: Sequence[str]) -> tuple[str, ...]:
    """A file is looked for where the user stands, in whichever process imports it."""
    return tuple(str(Path(n).absolute()) if n.endswith(".py") else n for n in imports)


def default_out(checkpoint: Path) -> Path:
    name = checkpoint.absolute().name if checkpoint.is_dir() else checkpoint.stem
    return Path(f"{name.removesuffix('.safetensors.index')}-fast")
