"""Files that the user means: the recipe of a checkpoint, the checkpoints of a pattern."""

from __future__ import annotations

import glob
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from ..core.errors import UsageError
from .sentences import as_text

RECIPE_NAME = "modelspeed.yaml"
RESERVED = ("logs",)  # a folder beside the artifacts of a batch


def find_recipe(checkpoint: Path, cwd: Path) -> Path | None:
    """The nearest of `<stem>.yaml` and `modelspeed.yaml` beside it, then `modelspeed.yaml` here.

    Of a folder that is a checkpoint, the one in it comes first."""
    beside = checkpoint.parent
    candidates = (
        *((checkpoint / RECIPE_NAME,) if checkpoint.is_dir() else ()),
        beside / f"{checkpoint.stem}.yaml",
        beside / RECIPE_NAME,
        cwd / RECIPE_NAME,
    )
    # A checkpoint may itself be named like a recipe; it is never its own recipe.
    return next((c for c in candidates if c.is_file() and c != checkpoint), None)


def is_pattern(text: str) -> bool:
    return any(c in text for c in "*?[")


def matching_files(pattern: str, base: Path) -> tuple[Path, ...]:
    """The file, or all that match, sorted. Raises UsageError where none does."""
    if not is_pattern(pattern) or (base / pattern).exists():
        return (base / pattern,)
    whole = pattern if Path(pattern).is_absolute() else f"{glob.escape(str(base))}/{pattern}"
    paths = sorted(Path(p) for p in glob.glob(whole, recursive=True))
    if not paths:
        raise UsageError(f"{as_text(pattern)} matches no file in `{base}`.")
    return tuple(paths)


def names_for(checkpoints: Sequence[Path]) -> list[str]:
    """A folder name each: the file's stem, with its folder's name where stems are alike.

    Raises UsageError where two would still bear one name."""
    stems = [p.stem for p in checkpoints]
    twice = {n for n, count in Counter(stems).items() if count > 1} | set(RESERVED)
    names = [
        f"{p.absolute().parent.name}-{n}" if n in twice else n
        for p, n in zip(checkpoints, stems, strict=True)
    ]
    if alike := [n for n, count in Counter(names).items() if count > 1]:
        raise UsageError(
            f"two checkpoints would be written to `{alike[0]}`; give them a `name` in a jobs file."
        )
    return names
