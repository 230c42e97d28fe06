"""From entries of a batch to plans: the command of each, and the key that it is done under."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..configs.discovery import find_recipe
from ..configs.entries import BatchEntry, set_values
from ..configs.machine import MachineFlags
from ..core.errors import ModelspeedError
from .batch_options import MACHINE, only
from .job import job_for, recipe_for
from .load_flags import LoadFlags

if TYPE_CHECKING:
    from ..batch.plan import ItemPlan


def plans_for(
    jobs: Sequence[BatchEntry],
    out: Path,
    *,
    force: bool,
    trust_pickle: bool,
    trust_code: bool = False,
    imports: Sequence[str] = (),
) -> list[ItemPlan]:
    flags = {"--force": force, "--trust-pickle": trust_pickle, "--trust-code": trust_code}
    more = (
        *(flag for flag, given in flags.items() if given),
        *(f"--import={name}" for name in imports),
    )
    return [_plan(entry, out / entry.name, more, trust_pickle) for entry in jobs]


def _plan(entry: BatchEntry, folder: Path, more: tuple[str, ...], trust_pickle: bool) -> ItemPlan:
    from ..batch.plan import TUNE, ItemPlan, content_hash, fallback_key

    words = [str(entry.checkpoint), "--out", str(folder)]
    recipe_file = find_recipe(entry.checkpoint, Path.cwd())
    if recipe_file is not None and entry.settings.config is None:
        words.append(f"--config={recipe_file.absolute()}")  # a node of a cluster has another folder
    for name, value in set_values(entry.settings).items():
        flag = f"--{name.replace('_', '-')}"
        values = value if isinstance(value, tuple) else (value,)
        words += [flag if v is True else f"{flag}={v}" for v in values if v is not False]
    content = content_hash(entry.checkpoint)
    try:
        key, max_drop = _key(entry, content, trust_pickle)
    except (ModelspeedError, OSError):
        key, max_drop = fallback_key(content, words), 1.0
    return ItemPlan(entry.name, entry.checkpoint, folder, key, (*TUNE, *words, *more), max_drop)


def _key(entry: BatchEntry, content: str, trust_pickle: bool) -> tuple[str, float]:
    """A key that changes with checkpoint, recipe, target or machine; and the accuracy limit."""
    from ..profiling.machine import fingerprint
    from ..tuning.journal import key_of

    said = set_values(entry.settings)
    config = said.pop("config", None)
    flags = MachineFlags(**only(said, MACHINE))
    rest = {n: v for n, v in said.items() if n not in MACHINE}
    load = LoadFlags(
        entry.checkpoint, config=Path(config) if config else None, trust_pickle=trust_pickle, **rest
    )
    recipe = recipe_for(load, "tune")
    job = job_for(load, recipe, flags)
    # The device's name is looked up; a missing one is the item's own to report.
    machine = fingerprint("cpu").fingerprint + flags.device
    return key_of("tune", job, recipe, content, machine), recipe.limits.max_drop
