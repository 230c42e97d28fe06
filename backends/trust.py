"""The list of compiled blobs that this user's own modelspeed made on this machine.

A blob is native code, so whoever made it may do anything. One that lies in an artifact runs only
if its hash is in this list, in the user's cache, or if the caller says that it is trusted.
"""

from __future__ import annotations

import hashlib
from contextlib import suppress
from pathlib import Path

from ..core.cache import cache_folder


def trust(blob: bytes) -> None:
    """Note that this user's modelspeed compiled `blob`; without a cache it compiles at load."""
    if is_trusted(blob):
        return
    with suppress(OSError):
        cache_folder().mkdir(parents=True, exist_ok=True)
        with _list().open("a", encoding="ascii") as file:
            file.write(f"{hashlib.sha256(blob).hexdigest()}\n")


def is_trusted(blob: bytes) -> bool:
    try:
        return hashlib.sha256(blob).hexdigest() in _list().read_text(encoding="ascii").split()
    except (OSError, ValueError):
        return False


def _list() -> Path:
    return cache_folder() / "compiled.txt"
