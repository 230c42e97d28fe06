"""The request to `check`: flags override what the artifact was made for."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..configs.discovery import RECIPE_NAME
from ..configs.inputs import with_flags, with_limits
from ..configs.load import load_recipe
from ..configs.machine import MachineFlags, resolve_target
from ..configs.recipe import Recipe
from ..core.errors import UsageError
from ..core.ladder_record import Rung
from ..core.records import Machine, Record, Target
from ..core.runtimes import DEFAULT_RUNTIME
from .finish import record_at
from .trust import announce, code_of

if TYPE_CHECKING:
    from ..tuning.check import CheckRequest


def asked_for(
    folder: Path, flags: dict[str, Any], against: Path | None, trust_code: bool = False
) -> CheckRequest:
    """Raises UsageError, ConfigError or ArtifactError."""
    from ..tuning.check import stored, target_of

    said, record, ms = _said(flags), stored(folder), flags.get("target_ms")
    changed = _changed_of_ratio(record, said)
    if ms is None and changed:
        raise UsageError(
            f"the artifact's target is a ratio at its own {changed}; name what it must reach at "
            "another with `--target-ms`."
        )
    recipe = _recipe(folder, flags, trust_code)
    if ms is None:
        target = target_of(record, _here(record, said))
    else:
        target = replace(record.target, ms=ms, speedup=None, fastest=False)
    request = _request(folder, replace(target, **said), flags, recipe)
    return replace(request, against=record_at(against) if against else None)


def asked_for_rungs(
    folder: Path, flags: dict[str, Any], against: Path | None, trust_code: bool = False
) -> list[CheckRequest]:
    """A request for each rung of a ladder, with its own target where it met that on this machine.

    Raises UsageError for flags about the one target of an artifact, and as `asked_for`.
    """
    from ..checkpoints.ladders import read_ladder

    if against is not None or "target_ms" in flags:
        raise UsageError(
            f"`{folder}` is a ladder, and each rung has a target of its own; `--target-ms` and "
            "`--against` are for the folder of one rung."
        )
    said, ladder = _said(flags), read_ladder(folder)
    recipe = _recipe(folder, flags, trust_code)
    return [_asked_for_rung(folder, rung, said, flags, recipe) for rung in ladder.rungs]


def _asked_for_rung(
    ladder: Path, rung: Rung, said: dict[str, Any], flags: dict[str, Any], recipe: Recipe
) -> CheckRequest:
    from ..tuning.check import stored

    folder = ladder / rung.folder
    record = stored(folder)
    request = _request(folder, _rung_target(rung, record, said), flags, recipe)
    if request.max_drop is not None or request.recipe is None:
        return request
    # A lower rung is there to give up accuracy: as much as when it was made, and the limit.
    known = max(0.0, (record.quality.drop or 0.0) if record.quality else 0.0)
    return replace(request, max_drop=min(1.0, known + recipe.limits.max_drop))


def _rung_target(rung: Rung, record: Record, said: dict[str, Any]) -> Target:
    """Without a latency where the rung missed its target when it was made, or where that is a ratio
    to an original which was measured elsewhere."""
    from ..tuning.check import elsewhere, target_of

    if rung.verdict == "met":
        if changed := _changed_of_ratio(record, said):
            raise UsageError(
                f"the target of `{rung.name}` is a ratio at its own {changed}; leave that as it is "
                "for a ladder, or name what this rung must reach with its folder and `--target-ms`."
            )
        here = _here(record, said)
        if not (_is_ratio(record) and elsewhere(record.machine, here)):
            return replace(target_of(record, here), **said)
    return replace(record.target, ms=None, speedup=None, fastest=False, **said)


def _said(flags: dict[str, Any]) -> dict[str, Any]:
    """Flags that change the artifact's target. Raises UsageError for any that can't be."""
    names = ("device", "threads", "percentile", "batch")
    said = {name: flags[name] for name in names if name in flags}
    resolve_target(Recipe(), MachineFlags(**said), flags.get("target_ms"))
    with_limits(Recipe(), flags.get("max_drop"))
    return said


def _changed_of_ratio(record: Record, said: dict[str, Any]) -> str:
    """Flags at which a ratio to the original was not measured; empty if there are none."""
    names = [n for n in ("percentile", "batch") if n in said]
    changed = [name for name in names if said[name] != getattr(record.target, name)]
    return " and ".join(changed) if _is_ratio(record) else ""


def _is_ratio(record: Record) -> bool:
    return record.target.ms is None and record.target.speedup is not None


def _here(record: Record, said: dict[str, Any]) -> Machine:
    """This machine with the flags' threads: they are part of what a latency holds for."""
    from ..profiling.machine import fingerprint
    from ..tuning.job import prepare_machine

    target = replace(record.target, runtime=DEFAULT_RUNTIME, **said)
    prepare_machine(target, 0)
    return fingerprint(target.device)


def _request(folder: Path, target: Target, flags: dict[str, Any], recipe: Recipe) -> CheckRequest:
    from ..tuning.check import CheckRequest

    data = recipe if recipe.data is not None else None
    return CheckRequest(folder, target, flags.get("max_drop"), data, runtime=flags.get("runtime"))


def _recipe(folder: Path, flags: dict[str, Any], trust_code: bool) -> Recipe:
    """The recipe that is named, or that lies where the user stands.

    Nothing of the artifact says where one is: it is data, and a recipe names code to run.
    """
    here = Path.cwd()
    usual = None if here.resolve().is_relative_to(folder.resolve()) else here / RECIPE_NAME
    named = flags.get("config") or (usual if usual and usual.is_file() else None)
    recipe = load_recipe(Path(named)) if named else Recipe()
    recipe = with_flags(recipe, data=flags.get("data"), cwd=here)
    if named:
        code = code_of(recipe, model=False, data="data" not in flags)
        announce([Path(named)], code, [], trust_code)
    return recipe
