"""Rows of a long benchmark, kept as they come, so that what is there is not run again."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

Row = dict[str, Any]


def keep_row(path: Path, row: Row) -> None:
    """Add a row, and show it."""
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")
    print(row, file=sys.stderr, flush=True)


def rows_of(path: Path, *keys: str) -> list[Row]:
    """All rows. Of those with the same values of `keys`, if there are any, the last one counts."""
    if not path.exists():
        return []
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return list({tuple(row[key] for key in keys): row for row in rows}.values()) if keys else rows
