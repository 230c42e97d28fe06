"""The journal of a batch: one JSON line for each item that begins or ends, written while it runs.

A line is on the disk before anything is built on it. A torn last line, from a kill or a full
disk, is left out when reading and closed before the next is written.
"""

from __future__ import annotations

import errno
import json
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from types import TracebackType

from ..core.errors import ArtifactError, UsageError
from ..core.items import Item
from ..core.json_values import JsonObject
from ..core.records_json import from_json, to_json
from ..core.workspace import sync

NAME = "batch.jsonl"


@dataclass
class BatchJournal:
    """By name, `ended` has the last row, `begun` key and time (epoch). One batch at a time."""

    path: Path
    ended: dict[str, Item] = field(default_factory=dict)
    begun: dict[str, tuple[str, float]] = field(default_factory=dict)
    _file: int = -1

    @classmethod
    def open(cls, folder: Path) -> BatchJournal:
        """Raises UsageError where another batch is running in `folder`."""
        import fcntl

        folder.mkdir(parents=True, exist_ok=True)
        journal = cls(folder / NAME)
        journal._file = os.open(journal.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            fcntl.flock(journal._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(journal._file)
            raise UsageError(
                f"another batch is writing to `{folder}`; wait for it or choose another `--out`."
            ) from error
        sync(folder)
        journal._recall()
        return journal

    def __enter__(self) -> BatchJournal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:  # fmt: skip
        os.close(self._file)

    def begin(self, name: str, key: str, attempt: int) -> None:
        self.begun[name] = (key, now := time.time())
        self.ended.pop(name, None)
        facts = {"name": name, "key": key, "attempt": attempt, "at": now}
        self._write({"event": "begin", **facts})

    def end(self, item: Item) -> None:
        self.ended[item.name] = item
        self._write({"event": "end", "item": to_json(item)})

    def _write(self, facts: JsonObject) -> None:
        now = datetime.now(timezone.utc).isoformat(timespec="seconds")
        line = json.dumps({"time": now, **facts}) + "\n"
        self._append(line.encode())
        os.fsync(self._file)

    def _append(self, line: bytes) -> None:
        """All of it or nothing: a nearly full disk takes a part, and the next line would follow."""
        size = os.fstat(self._file).st_size
        try:
            if os.write(self._file, line) != len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path))
        except OSError:
            os.ftruncate(self._file, size)
            raise

    def _recall(self) -> None:
        text = self.path.read_bytes()
        for facts in _lines(text):
            try:
                if facts["event"] == "begin":
                    self.begun[str(facts["name"])] = (str(facts["key"]), float(facts["at"]))
                    self.ended.pop(str(facts["name"]), None)
                else:
                    item = from_json(Item, facts["item"], "item")
                    self.ended[item.name] = item
            except (ArtifactError, KeyError, ValueError, TypeError, OverflowError):
                continue  # of another version: that item runs again
        if text and not text.endswith(b"\n"):
            os.write(self._file, b"\n")


def _lines(text: bytes) -> Iterator[JsonObject]:
    for line in text.split(b"\n"):
        try:
            facts = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(facts, dict):
            yield facts
