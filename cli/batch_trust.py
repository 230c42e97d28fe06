"""Code that a batch runs: of recipes beside its checkpoints, and named by its jobs file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..configs.discovery import find_recipe
from ..configs.entries import BatchEntry
from ..configs.jobs import JobSettings
from ..configs.load import load_recipe
from ..configs.references import DATA, FILE, MODELS, parse_reference
from ..core.errors import ConfigError
from .trust import announce, code_of, folder_of


def announce_batch_code(
    jobs: Sequence[BatchEntry], file: Path | None, flags: JobSettings, trust_code: bool
) -> None:
    """Once for all items, before any of them runs; see `trust.announce`."""
    files: dict[Path, None] = {}
    code: dict[Path, None] = {}
    for entry in jobs:
        settings = entry.settings
        named = [s for s in ("model", "data") if getattr(settings, s) and not getattr(flags, s)]
        for name in named:  # by the jobs file
            reference = parse_reference(getattr(settings, name), MODELS | DATA)
            if reference is not None and reference.kind == FILE and file is not None:
                files[file], code[Path(reference.place)] = None, None
        recipe = settings.config or find_recipe(entry.checkpoint, Path.cwd())
        runs = _of_recipe(Path(recipe), settings) if recipe else []
        files |= {Path(recipe): None} if runs and recipe else {}
        code |= dict.fromkeys(runs)
    announce(list(files), list(code), [folder_of(e.checkpoint) for e in jobs], trust_code)


def _of_recipe(recipe: Path, settings: JobSettings) -> list[Path]:
    try:
        loaded = load_recipe(recipe)
    except ConfigError:
        return []  # the item will say so itself
    return code_of(loaded, model=settings.model is None, data=settings.data is None)
