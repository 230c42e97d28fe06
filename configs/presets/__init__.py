"""Recipes that come with modelspeed, read as package data."""

from __future__ import annotations

from importlib.resources import files

from ...core.errors import UsageError
from ..sentences import as_text, nearest


def preset_names() -> list[str]:
    names = (entry.name for entry in files(__name__).iterdir())
    return sorted(name.removesuffix(".yaml") for name in names if name.endswith(".yaml"))


def read_preset(name: str) -> str:
    """The YAML text of a preset. Raises UsageError with the nearest name."""
    names = preset_names()
    if name not in names:
        raise UsageError(f"There is no preset {as_text(name)}; {nearest(name, names)}")
    return files(__name__).joinpath(f"{name}.yaml").read_text(encoding="utf-8")
