"""The folder of a ladder: `ladder.json` beside one artifact for each rung, written whole and read
with doubt."""

from __future__ import annotations

import datetime
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

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
from ..core.records import Machine, Target
from ..core.workspace import recover, workspace
from .artifact import absolute, unwritable
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
) -> LadderRecord:
    """Write the ladder of `sources`, the most accurate first; the artifacts are copied.

    `force` replaces a ladder, nothing else. Raises UsageError, or ArtifactError where an artifact
    is damaged or the disk refuses.
    """
    folder = absolute(folder)
    _check_place(folder, force)
    rungs = tuple(_rung(number, source) for number, source in enumerate(sources))
    created = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
    record = LadderRecord(machine, rungs, metric, tuple(cascades), version, created)
    text = ladder_to_json(record)
    ladder_from_json(text)  # what can't be read is not written
    try:
        with workspace(folder, parents=True) as space:
            for rung, source in zip(rungs, sources, strict=True):
                shutil.copytree(source.artifact, space.new / rung.folder)
            (space.new / LADDER).write_text(text, encoding="utf-8")
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
    )


def _check_place(folder: Path, force: bool) -> None:
    recover(folder)
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        raise UsageError(f"`{folder}` is not a folder; choose another `--out`.")
    if not folder.is_dir() or not any(folder.iterdir()):
        return
    if not force:
        raise UsageError(f"`{folder}` already exists; pass `--force` or another `--out`.")
    foreign = sorted(p.name for p in folder.iterdir() if p.name not in (LADDER, RUNGS))
    if not is_ladder(folder) or foreign:
        raise UsageError(
            f"`{folder}` is not a ladder of modelspeed or holds more than one, so `--force` does "
            "not replace it; choose another `--out`."
        )
