"""The rung of a ladder that a command is about."""

from __future__ import annotations

from pathlib import Path

from ..core.errors import UsageError


def rung_of(folder: Path, rung: int | None) -> Path:
    """The folder of an artifact: `folder`, or that of a ladder's rung, by its place.

    Raises UsageError where there is none, or where a ladder comes without its place.
    """
    from ..checkpoints.ladders import is_ladder, read_ladder

    if not is_ladder(folder):
        if rung is not None:
            raise UsageError(f"`{folder}` is not a ladder, so there is no `--rung`.")
        return folder
    rungs = read_ladder(folder).rungs
    names = ", ".join(row.name for row in rungs)
    if rung is None:
        raise UsageError(f"`{folder}` is a ladder; name one of its rungs with `--rung`: {names}.")
    if not 0 <= rung < len(rungs):
        raise UsageError(f"`--rung` is {rung}; the rungs of `{folder}` are {names}.")
    return folder / rungs[rung].folder


def beside_ladder(ladder: Path, rung: Path, format: str) -> Path:
    """The file that a rung is exported to where none is named."""
    from ..runtime.export import SUFFIXES

    folder = ladder.absolute()
    return folder.with_name(f"{folder.name}-{rung.name}{SUFFIXES.get(format, '')}")
