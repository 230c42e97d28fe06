"""The folder of a ladder: `ladder.json` beside one artifact for each rung, written whole and read
with doubt."""

from __future__ import annotations

import datetime
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..core.errors import ArtifactError, UsageError, first_line
from ..core.files import read_text, sha256
from ..core.ladder_record import (
    LADDER,
    RUNGS,
    BatchLatency,
    CascadeRecord,
    LadderRecord,
    Rung,
    ladder_from_json,
    ladder_to_json,
)
from ..core.records import Machine, Target, Verdict
from ..core.workspace import recover, workspace
from .artifact import absolute, check_writable, unwritable
from .manifest import MANIFEST, read_manifest


@dataclass(frozen=True)
class RungSource:
    """A written artifact that becomes a rung, with what was measured of it.

    `samples_ms`: raw samples by batch size. `name`: of its folder, without the number.
    """

    artifact: Path
    name: str
    agreement: float
    memory_bytes: int
    samples_ms: Mapping[int, Sequence[float]]
    accuracy: float | None = None
    target: Target | None = None
    verdict: Verdict = "none"
    speedup: float | None = None


# Beside the record and the rungs: renderings of the record.
REPORTS = ("report.md", "report.html")


def is_ladder(folder: Path) -> bool:
    if not folder.exists():
        recover(folder)  # a killed run may have moved it away
    return (folder / LADDER).is_file()


def assemble_ladder(
    folder: Path,
    sources: Sequence[RungSource],
    machine: Machine,
    *,
    metric: str | None = None,
    cascades: Sequence[CascadeRecord] = (),
    version: str = "",
    force: bool = False,
    move: bool = False,
    facts: Mapping[str, Any] | None = None,
    reports: Callable[[LadderRecord], Mapping[str, str]] = lambda record: {},
) -> LadderRecord:
    """Write the ladder of `sources`, the most accurate first; the artifacts are copied.

    `force` replaces a ladder, nothing else. `move`: instead of copied the artifacts are moved; they
    may be gone even if this fails. `facts`: further fields of the record; `reports`: texts made of
    it, by name. Raises UsageError, or ArtifactError where an artifact is damaged or the disk
    refuses.
    """
    folder = absolute(folder)
    check_ladder_place(folder, force)
    rungs = tuple(_rung(number, source) for number, source in enumerate(sources))
    created = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
    record = LadderRecord(machine, rungs, metric, tuple(cascades), version, created)
    record = replace(record, **(facts or {}))
    text = ladder_to_json(record)
    ladder_from_json(text)  # what can't be read is not written
    try:
        with workspace(folder, parents=True) as space:
            (space.new / RUNGS).mkdir(parents=True)
            for name, written in {LADDER: text, **reports(record)}.items():
                (space.new / name).write_text(written, encoding="utf-8")
            bring = shutil.move if move else shutil.copytree  # from another disk it copies, too
            for rung, source in zip(rungs, sources, strict=True):
                bring(source.artifact, space.new / rung.folder)
            space.put(replace=force)
    except OSError as error:
        raise unwritable(folder, error) from error
    return record


def read_ladder(folder: Path) -> LadderRecord:
    """The record of the ladder in `folder`, whose rungs must be those that were measured.

    Raises ArtifactError where it is missing or damaged, or where a rung was exchanged.
    """
    try:
        text = read_text(folder / LADDER)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ArtifactError(f"`{folder}` is not a ladder: it has no `{LADDER}`.") from error
    except (OSError, ValueError) as error:
        raise ArtifactError(f"`{folder / LADDER}` can't be read: {first_line(error)}") from error
    record = ladder_from_json(text, str(folder / LADDER))
    for rung in record.rungs:
        manifest = folder / rung.folder / MANIFEST
        if not manifest.is_file() or sha256(manifest) != rung.manifest_sha256:
            raise ArtifactError(
                f"`{folder / rung.folder}` is missing or is not the variant that `{LADDER}` "
                "has the latencies of."
            )
    return record


def _rung(number: int, source: RungSource) -> Rung:
    read_manifest(source.artifact)
    return Rung(
        folder=f"{RUNGS}/{number}-{source.name}",
        manifest_sha256=sha256(source.artifact / MANIFEST),
        agreement=float(source.agreement),
        memory_bytes=source.memory_bytes,
        latencies=tuple(BatchLatency.of(b, ms) for b, ms in sorted(source.samples_ms.items())),
        accuracy=source.accuracy,
        target=source.target,
        verdict=source.verdict,
        speedup=source.speedup,
    )


def check_ladder_place(folder: Path, force: bool) -> None:
    """Raises UsageError or ArtifactError where a ladder must not be put, or can't be."""
    check_writable(folder, force, _refuse_foreign)


def _refuse_foreign(folder: Path) -> None:
    ours = {LADDER, RUNGS, *REPORTS}
    foreign = sorted(p.name for p in folder.iterdir() if p.name not in ours)
    if not is_ladder(folder) or foreign:
        raise UsageError(
            f"`{folder}` is not a ladder of modelspeed or holds more than one, so `--force` does "
            "not replace it; choose another `--out`."
        )
