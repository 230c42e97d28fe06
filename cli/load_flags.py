"""Everything the command line says about what to load and what to reach."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from ..configs import flags as f
from ..configs.discovery import find_recipe

GOALS = ("target_ms", "target_speedup", "fastest", "max_drop", "prefer")


@dataclass(frozen=True)
class LoadFlags:
    """The annotations make these the flags of commands; see `takes.py`."""

    checkpoint: Path
    target_ms: Annotated[float | None, f.TARGET_MS] = None
    target_speedup: Annotated[float | None, f.TARGET_SPEEDUP] = None
    fastest: Annotated[bool, f.FASTEST] = False
    max_drop: Annotated[float | None, f.MAX_DROP] = None
    prefer: Annotated[str | None, f.PREFER] = None
    minutes: Annotated[float | None, f.MINUTES] = None
    model: Annotated[str | None, f.MODEL] = None
    data: Annotated[str | None, f.DATA] = None
    inputs: Annotated[str | None, f.INPUTS] = None
    input_size: Annotated[str | None, f.INPUT_SIZE] = None
    config: Annotated[Path | None, f.CONFIG] = None
    preset: Annotated[str | None, f.PRESET] = None
    without_data: Annotated[bool, f.WITHOUT_DATA] = False
    trust_pickle: Annotated[bool, f.TRUST_PICKLE] = False
    trust_code: Annotated[bool, f.TRUST_CODE] = False
    ignore: Annotated[tuple[str, ...], f.IGNORE] = ()
    imports: Annotated[tuple[str, ...], f.IMPORTS] = ()

    @property
    def recipe_file(self) -> Path | None:
        """Named, or found beside the checkpoint or where the user stands."""
        return self.config or find_recipe(self.checkpoint, Path.cwd())
