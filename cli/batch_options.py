"""The flags of `batch`: checked once for all items, and how to run them here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from ..configs.entries import GOALS, set_values
from ..configs.flags import MINUTES, RETRIES, WORKERS
from ..configs.inputs import check_pattern
from ..configs.jobs import JobsFile, JobSettings, parse_size
from ..configs.machine import MachineFlags, resolve_target
from ..configs.recipe import Recipe
from ..core.errors import UsageError

if TYPE_CHECKING:
    from ..batch.plan import Options

T = TypeVar("T")
MACHINE = ("device", "threads", "runtime", "percentile", "batch", "seed")


def settings_of(flags: Mapping[str, Any]) -> JobSettings:
    """The command line's settings in the form of a jobs file; None for each flag not given."""
    said = {n: None if flags[n] is False else flags[n] for n in JobSettings.model_fields}
    said["config"] = str(flags["config"]) if flags["config"] else None
    return JobSettings.model_construct(**said)


def check_flags(flags: JobSettings) -> None:
    """Raises UsageError where a flag can't be, so that not every item has to say it."""
    said = set_values(flags)
    for pattern in said.get("ignore", ()):
        check_pattern(f"`--ignore` is `{pattern}`", pattern)
    machine = MachineFlags(**only(said, MACHINE))
    goals = only(said, GOALS)
    resolve_target(
        Recipe(), machine, goals.get("target_ms"), goals.get("target_speedup"),
        bool(goals.get("fastest")),
    )  # fmt: skip


def options_for(
    file: JobsFile | None, base: Path, *, out: Path | None, memory_limit: str | None,
    keep_going: bool, resume: bool, **numbers: Any,
) -> Options:  # fmt: skip
    """Flags, then the jobs file, then what is usual. Raises UsageError."""
    for flag, name in ((WORKERS, "workers"), (RETRIES, "retries"), (MINUTES, "minutes")):
        flag.check(numbers[name])
    from ..batch.plan import Options

    merged = {n: getattr(file, n, None) if v is None else v for n, v in numbers.items()}
    folder = out or (base / file.out if file and file.out else None)
    if folder is None:
        raise UsageError("name the folder of all artifacts with `--out`, or `out` in a jobs file.")
    size = memory_limit or (file.memory_limit if file else None)
    try:
        memory = parse_size(size) if size else 0
    except ValueError as error:
        raise UsageError(f"`--memory-limit` is `{size}`; {error}.") from error
    usual = {n: v for n, v in merged.items() if v is not None}
    return Options(folder.absolute(), memory=memory, keep_going=keep_going, resume=resume, **usual)


def only(values: dict[str, T], names: Sequence[str]) -> dict[str, T]:
    return {name: values[name] for name in names if name in values}
