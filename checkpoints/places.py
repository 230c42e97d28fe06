"""Files that a checkpoint consists of: regular ones, inside the folder that it came in."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from ..core.errors import CheckpointError

KINDS = {
    stat.S_IFIFO: "a pipe", stat.S_IFCHR: "a device", stat.S_IFBLK: "a device",
    stat.S_IFSOCK: "a socket", stat.S_IFDIR: "a folder",
}  # fmt: skip


def there(path: Path) -> bool:
    """Is something of that name there, be it only a link that leads nowhere?"""
    return os.path.lexists(path)


def check_inside(path: Path) -> Path:
    """Raises CheckpointError where `path` is a link out of its folder or is not a regular file.

    The cache of Hugging Face keeps the files themselves in `blobs`, beside its `snapshots`.
    """
    try:
        target = path.resolve(strict=True)
        kind = stat.S_IFMT(target.stat().st_mode)
    except (OSError, RuntimeError) as error:
        raise CheckpointError(f"`{path}` leads nowhere.") from error
    if path.is_symlink() and not any(target.is_relative_to(home) for home in _homes(path)):
        raise CheckpointError(
            f"`{path}` is a link to `{target}`, outside of its folder; it is not followed."
        )
    if kind != stat.S_IFREG:
        what = KINDS.get(kind, "something else")
        raise CheckpointError(f"`{path}` is {what}, not a regular file.")
    return path


def _homes(path: Path) -> list[Path]:
    folder = path.parent.absolute()
    cached = folder.parent.name == "snapshots"
    homes = [folder, *([folder.parent.parent / "blobs"] if cached else [])]
    return [home.resolve() for home in homes]
