"""Code that a file names and the user did not: it is said, and must be the user's own."""

from __future__ import annotations

import sys
from collections.abc import Collection
from pathlib import Path

from ..configs.recipe import Recipe
from ..configs.references import DATA, FILE, MODELS, parse_reference
from ..core.errors import UsageError
from ..core.ownership import objection
from ..reporting.text import clean


def code_of(recipe: Recipe, *, model: bool = True, data: bool = True) -> list[Path]:
    """The Python files that a recipe names for the model, and for data and metric."""
    spec = recipe.data
    texts = [
        *([recipe.model.factory] if model and recipe.model else []),
        *([spec.factory] if data and spec else []),
        *([spec.metric] if spec else []),
    ]
    references = (parse_reference(text, MODELS | DATA) for text in texts)
    return [recipe.base / r.place for r in references if r is not None and r.kind == FILE]


def announce(
    files: Collection[Path], code: Collection[Path], beside: Collection[Path], trusted: bool
) -> None:
    """Say on stderr that `code` runs, which `files` name.

    Raises UsageError where a recipe or a code file, or a folder above them up to those of `beside`,
    is another user's or open to others, unless `trusted`.
    """
    if not code:
        return
    named, running = _names(files), _names(code)
    tops = [*beside, *(file.parent for file in files)]
    if not trusted and (why := objection([*files, *code], tops)):
        raise UsageError(
            f"{named} would run code ({running}), but {why}: whoever can write there decides what "
            "runs as you. Look at the files, then pass `--trust-code`, or make them your own."
        )
    said = f"running code of {running}, as {named} says"
    sys.stderr.write(clean(said).replace("\n", " ") + "\n")


def _names(paths: Collection[Path]) -> str:
    shown = [f"`{path}`" for path in dict.fromkeys(paths)]
    more = f" and {len(shown) - 5} more" if len(shown) > 5 else ""
    return ", ".join(shown[:5]) + more


def folder_of(checkpoint: Path) -> Path:
    """The folder that a checkpoint came in."""
    return checkpoint if checkpoint.is_dir() else checkpoint.absolute().parent
