"""From flags and files to a job and a recipe."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..configs.discovery import find_recipe
from ..configs.inputs import with_flags, with_input_size, with_limit
from ..configs.load import load_recipe, parse_recipe
from ..configs.machine import MachineFlags, resolve_target
from ..configs.order import Mode, check_order
from ..configs.presets import read_preset
from ..configs.recipe import Recipe, Step, make_step
from ..core.errors import UsageError

if TYPE_CHECKING:
    from ..tuning.job import Job

USUAL = "balanced"
TRAINING = ("compensate", "finetune")
LOSSLESS = ("flush_subnormals", "drop_dead", "fold_batchnorm", "channels_last")


@dataclass(frozen=True)
class Asked:
    """Everything the command line said about what to load."""

    checkpoint: Path
    config: Path | None = None
    preset: str | None = None
    model: str | None = None
    data: str | None = None
    inputs: str | None = None
    trust_pickle: bool = False
    without_data: bool = False
    target_ms: float | None = None
    target_speedup: float | None = None
    fastest: bool = False
    max_drop: float | None = None
    input_size: str | None = None
    ignore: tuple[str, ...] = ()
    imports: tuple[str, ...] = ()


def recipe_for(asked: Asked, mode: Mode) -> Recipe:
    """The recipe in force: found or named, its steps from a preset if asked, flags on top."""
    found = asked.config or find_recipe(asked.checkpoint, Path.cwd())
    recipe = load_recipe(found) if found else Recipe(adjust=_preset(USUAL), source="the default")
    if asked.preset:
        recipe = recipe.model_copy(update={"adjust": _preset(asked.preset)})
    elif not recipe.adjust and mode == "tune":
        recipe = recipe.model_copy(update={"adjust": _preset(USUAL)})
    recipe = with_flags(
        recipe, model=asked.model, data=asked.data, inputs=asked.inputs, ignore=asked.ignore,
        cwd=Path.cwd(),
    )  # fmt: skip
    whole = with_limit(recipe, asked.max_drop)
    recipe = _resized(_without_data(whole, asked.without_data), asked)
    if mode == "apply" and whole.adjust and not recipe.adjust:
        raise UsageError(_none_left(whole, asked))
    check_order(recipe, mode)
    return recipe


def _preset(name: str) -> tuple[Step, ...]:
    return parse_recipe(read_preset(name), f"preset {name}", Path.cwd()).adjust


def _without_data(recipe: Recipe, allowed: bool) -> Recipe:
    """Without data the cost of lossy steps is unknown: only lossless ones run unless allowed."""
    if recipe.data is not None:
        return recipe
    if not allowed:
        steps = tuple(s for s in recipe.adjust if s.name in LOSSLESS)
        return recipe.model_copy(update={"adjust": steps})
    steps = tuple(_blind(s) for s in recipe.adjust if not _wants_data(s))
    return recipe.model_copy(update={"adjust": steps})


def _none_left(recipe: Recipe, asked: Asked) -> str:
    names = ", ".join(f"`{s.name}`" for s in recipe.adjust)
    more = "" if asked.without_data else ", or allow what may cost accuracy with `--without-data`"
    return f"`{recipe.source}`: without data none of its steps runs ({names}); give `--data`{more}."


def _resized(recipe: Recipe, asked: Asked) -> Recipe:
    """`--input-size` in place of the recipe's own."""
    if asked.input_size is None:
        return recipe
    if recipe.data is None and not asked.without_data:
        raise UsageError(
            "`--input-size` costs accuracy, and there is no data to measure it by; give `--data`, "
            "or allow it with `--without-data`."
        )
    return with_input_size(recipe, asked.input_size)


def _wants_data(step: Step) -> bool:
    return step.name in TRAINING or getattr(step.settings, "scheme", None) == "int8_static"


def _blind(step: Step) -> Step:
    """Fisher information needs data; weights alone do not."""
    if step.name != "prune":
        return step
    settings: dict[str, Any] = {**step.settings.model_dump(), "importance": "magnitude"}
    return make_step("prune", **settings)


def job_for(asked: Asked, recipe: Recipe, flags: MachineFlags) -> Job:
    from ..tuning.job import Job

    model = recipe.model
    return Job(
        checkpoint=str(asked.checkpoint.absolute()),
        target=resolve_target(recipe, flags, asked.target_ms, asked.target_speedup, asked.fastest),
        factory=model.factory if model else None,
        base=str(recipe.base.absolute()),
        args=dict(model.args) if model else {},
        inputs=tuple(i.model_dump(mode="json", exclude_none=True) for i in recipe.inputs),
        trust_pickle=asked.trust_pickle,
        seed=flags.seed,
        ignore=recipe.ignore,
        imports=absolute_files(asked.imports),
    )


def absolute_files(imports: Sequence[str]) -> tuple[str, ...]:
    """A file is looked for where the user stands, in whichever process imports it."""
    return tuple(str(Path(n).absolute()) if n.endswith(".py") else n for n in imports)


def default_out(checkpoint: Path) -> Path:
    name = checkpoint.absolute().name if checkpoint.is_dir() else checkpoint.stem
    return Path(f"{name.removesuffix('.safetensors.index')}-fast")
