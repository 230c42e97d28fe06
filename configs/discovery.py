"""Which recipe a checkpoint uses when none is named."""

from __future__ import annotations

from pathlib import Path

RECIPE_NAME = "modelspeed.yaml"


def find_recipe(checkpoint: Path, cwd: Path) -> Path | None:
    """The nearest of `<stem>.yaml` and `modelspeed.yaml` beside it, then `modelspeed.yaml` here."""
    beside = checkpoint.parent
    candidates = (
        beside / f"{checkpoint.stem}.yaml",
        beside / RECIPE_NAME,
        cwd / RECIPE_NAME,
    )
    # A checkpoint may itself be named like a recipe; it is never its own recipe.
    return next((c for c in candidates if c.is_file() and c != checkpoint), None)
