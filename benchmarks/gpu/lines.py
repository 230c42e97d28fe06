"""One line of JSON for each finding, written as soon as it is known.

A run may be stopped at any moment, and of a machine that is lent only what lies in `$OUT` comes
back, in few files: so all lines go into one.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

NAME = "lines.jsonl"


def emit(kind: str, **facts: Any) -> None:
    line = json.dumps({"kind": kind, **facts})
    with (Path(os.environ["OUT"]) / NAME).open("a", encoding="utf-8") as file:
        file.write(line + "\n")
        file.flush()
        os.fsync(file.fileno())


def read(path: Path) -> list[dict[str, Any]]:
    """Every whole line; the last one may have been cut off."""
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict):
            rows.append(row)
    return rows
