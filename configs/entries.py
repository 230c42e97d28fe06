"""The checkpoints of a batch: a jobs file or patterns, with flags that win over both."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..core.errors import UsageError
from ..core.json_values import JsonObject
from .discovery import matching_files, names_for
from .jobs import JobEntry, JobSettings, JobsFile, load_jobs

GOALS = ("target_ms", "target_speedup", "fastest")
_FACTORIES = ("model", "data")
_Settings = JsonObject


@dataclass(frozen=True)
class BatchEntry:
    """One checkpoint with the settings that hold for it; files in them are absolute."""

    checkpoint: Path
    name: str
    settings: JobSettings


def entries(
    words: Sequence[str], flags: JobSettings, cwd: Path
) -> tuple[tuple[BatchEntry, ...], JobsFile | None, Path]:
    """All that is meant, the jobs file if there is one, and the folder its paths start from.

    Raises UsageError or ConfigError before anything runs.
    """
    said = _absolute(set_values(flags), cwd)
    if not any(word.endswith((".yaml", ".yml")) for word in words):
        return _named([JobEntry(checkpoint=w) for w in words], cwd, {}, said), None, cwd
    if len(words) > 1:
        raise UsageError("name either one jobs file, or checkpoints and patterns.")
    path = cwd / words[0]
    file, base = load_jobs(path), path.parent
    return _named(file.jobs, base, _absolute(set_values(file.defaults), base), said), file, base


def set_values(settings: JobSettings) -> _Settings:
    """The values that are set, by name."""
    values = {name: getattr(settings, name) for name in JobSettings.model_fields}
    return {name: value for name, value in values.items() if value is not None}


def _named(
    jobs: Sequence[JobEntry], base: Path, defaults: _Settings, said: _Settings
) -> tuple[BatchEntry, ...]:
    rows: list[tuple[Path, str | None, JobSettings]] = []
    for job in jobs:
        settings = _merged(defaults, _absolute(set_values(job), base), said)
        rows += [(path, job.name, settings) for path in matching_files(job.checkpoint, base)]
    unnamed = [path for path, name, _ in rows if name is None]
    twice = next((path for path, count in Counter(unnamed).items() if count > 1), None)
    if twice is not None:
        raise UsageError(f"`{twice}` is asked for twice; give each a `name` in a jobs file.")
    free = iter(names_for(unnamed))
    batch = tuple(BatchEntry(path, name or next(free), settings) for path, name, settings in rows)
    alike = next((n for n, count in Counter(e.name for e in batch).items() if count > 1), None)
    if alike is not None:
        raise UsageError(f"two checkpoints would be written to `{alike}`; give one another `name`.")
    return batch


def _merged(*layers: _Settings) -> JobSettings:
    """Later ones win; a goal takes the place of another goal."""
    merged: _Settings = {}
    for layer in layers:
        if any(goal in layer for goal in GOALS):
            merged = {k: v for k, v in merged.items() if k not in GOALS}
        merged |= layer
    return JobSettings.model_construct(**merged)


def _absolute(values: _Settings, base: Path) -> _Settings:
    absolute = dict(values)
    if "config" in values:
        absolute["config"] = str(base / values["config"])
    for name in _FACTORIES:
        # `library:NAME` is not a file; `FILE.py:NAME` is.
        if name in values and ".py:" in values[name]:
            absolute[name] = str(base / values[name])
    return absolute
