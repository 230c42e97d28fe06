"""Where this machine's timings and the journals of runs are kept."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from .files import write_whole


def cache_folder() -> Path:
    """`MODELSPEED_CACHE`, or `modelspeed` in the user's cache folder. Need not exist yet."""
    named = os.environ.get("MODELSPEED_CACHE")
    usual = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(named or os.path.join(usual, "modelspeed"))


def keep(path: Path, content: str | bytes) -> None:
    """Write a file of the cache, whole; the run goes on where that can't be done."""
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_file() or not path.exists():  # a pipe would be waited for
            write_whole(path, content)
