"""The request to `check`: flags override what the artifact was made for."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..configs.discovery import RECIPE_NAME
from ..configs.inputs import with_flags, with_limits
from ..configs.load import load_recipe
from ..configs.machine import MachineFlags, resolve_target
from ..configs.recipe import Recipe
from ..core.errors import UsageError
from ..core.runtimes import DEFAULT_RUNTIME
from .finish import record_at
from .trust import announce, code_of

if TYPE_CHECKING:
    from ..tuning.check import CheckRequest


UNBOUNDED_MS = 1e9  # stands for no target


def asked_for(
    folder: Path, flags: dict[str, Any], against: Path | None, trust_code: bool = False
) -> CheckRequest:
    """Raises UsageError, ConfigError or ArtifactError."""
    from ..profiling.machine import fingerprint
    from ..tuning.check import CheckRequest, stored, target_of
    from ..tuning.job import prepare_machine

    names = ("device", "threads", "percentile", "batch")
    said = {n: flags[n] for n in names if n in flags}
    ms = flags.get("target_ms")
    resolve_target(Recipe(), MachineFlags(**said), ms)  # refuses what can't be
    with_limits(Recipe(), flags.get("max_drop"))
    record = stored(folder)
    changed = [
        n for n in ("percentile", "batch") if said.get(n) not in (None, getattr(record.target, n))
    ]
    if ms is None and changed and record.target.ms is None and record.target.speedup is not None:
        raise UsageError(
            f"the artifact's target is a ratio at its own {' and '.join(changed)}; name what it "
            "must reach at another with `--target-ms`."
        )
    recipe = _recipe(folder, flags, trust_code)
    if ms is None:
        # The flags' threads are part of what a latency holds for.
        prepare_machine(replace(record.target, runtime=DEFAULT_RUNTIME, **said), 0)
        device = said.get("device", record.target.device)
        target = target_of(record, fingerprint(device))
    else:
        target = replace(record.target, ms=ms, speedup=None, fastest=False)
    return CheckRequest(
        folder, replace(target, **said), flags.get("max_drop"),
        recipe if recipe.data is not None else None,
        record_at(against) if against else None, flags.get("runtime"),
    )  # fmt: skip


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
    record = read_ladder(folder)
    return [
        _asked_for_rung(folder / rung.folder, rung.verdict == "met", flags, trust_code)
        for rung in record.rungs
    ]


def _asked_for_rung(
    folder: Path, met: bool, flags: dict[str, Any], trust_code: bool
) -> CheckRequest:
    from ..tuning.check import stored

    asked = None
    if met:
        with suppress(UsageError):  # a ratio to an original that was measured elsewhere
            asked = asked_for(folder, flags, None, trust_code)
    if asked is None:  # what was missed when it was made is not one to fail for
        asked = asked_for(folder, {"target_ms": UNBOUNDED_MS, **flags}, None, trust_code)
        asked = replace(asked, target=replace(asked.target, ms=None))
    if asked.max_drop is not None or asked.recipe is None:
        return asked
    # A lower rung is there to give up accuracy: as much as when it was made, and the limit.
    quality = stored(folder).quality
    known = max(0.0, (quality.drop or 0.0) if quality else 0.0)
    return replace(asked, max_drop=min(1.0, known + asked.recipe.limits.max_drop))


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
