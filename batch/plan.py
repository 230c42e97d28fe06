"""The work of a batch: a command for each checkpoint, and how to run them all."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..checkpoints.detect import INDEX
from ..checkpoints.shards import shards_of
from ..core.errors import CheckpointError
from ..core.files import sha256
from ..core.items import Item, Status
from ..core.processes import python

TUNE = python("-m", "modelspeed", "tune")


@dataclass(frozen=True)
class ItemPlan:
    """One item. `command` runs it as a user would; `resuming` are the words that make it go on."""

    name: str
    checkpoint: Path
    folder: Path
    key: str
    command: tuple[str, ...]
    max_drop: float = 1.0
    resuming: tuple[str, ...] = ("--resume",)

    def item(self, status: Status, **facts: object) -> Item:
        return Item(self.name, str(self.checkpoint), self.key, status, **facts)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Options:
    """Options for running a batch here. `memory` in bytes, 0 for no limit; `minutes` of one
    item."""

    out: Path
    workers: int = 2
    retries: int = 1
    keep_going: bool = True
    resume: bool = False
    memory: int = 0
    minutes: float | None = None


def content_hash(path: Path) -> str:
    """Of a file (an index with its shards), or of all files of a folder with their names.

    `missing` where there is none.
    """
    try:
        if path.is_dir():
            files = sorted(p for p in path.rglob("*") if p.is_file())
            lines = "\n".join(f"{p.relative_to(path)} {sha256(p)}" for p in files)
            return hashlib.sha256(lines.encode(errors="surrogateescape")).hexdigest()
        shards = sorted(set(shards_of(path).values())) if path.name.endswith(INDEX) else []
        return sha256(path, *(path.parent / name for name in shards))
    except (OSError, CheckpointError):
        return "missing"


def fallback_key(content: str, command: Sequence[str]) -> str:
    """For an item whose recipe or target can't be read: it will say so itself."""
    text = "\0".join((content, *command))
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[:20]
