"""Where this machine's timings and the journals of runs are kept."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path:
    """`MODELSPEED_CACHE`, or `modelspeed` in the user's cache folder. Need not exist yet."""
    named = os.environ.get("MODELSPEED_CACHE")
    usual = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(named or os.path.join(usual, "modelspeed"))
