"""Files that are there whole or not at all."""

from __future__ import annotations

from pathlib import Path

from .workspace import workspace


def write_whole(path: Path, content: str | bytes) -> None:
    """Written under another name and renamed; what was there stays where the disk refuses.

    A link stays one; a pipe, such as `/dev/stdout`, is written to.
    """
    data = content.encode() if isinstance(content, str) else content
    if path.exists() and not path.is_file():
        path.write_bytes(data)
        return
    with workspace(path.resolve()) as space:
        space.new.write_bytes(data)
        space.put(replace=True)
