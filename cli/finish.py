"""How `tune` and `apply` end: the report, the next command, the exit code."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import typer
from rich.console import Console

from ..core.endings import ACCURACY_LIMIT, exit_code
from ..core.records import Record
from ..core.workspace import recover
from ..reporting import console
from ..reporting import json as record_json

if TYPE_CHECKING:
    from ..tuning.results import Outcome


def finish(outcome: Outcome, max_drop: float, as_json: bool) -> None:
    """Show the record and exit with the verdict's code."""
    show(outcome.record, as_json)
    if outcome.folder is not None:
        _say(f"\nwritten to {outcome.folder}; next: modelspeed show {outcome.folder}")
        _say(f"  python -c \"import modelspeed; model = modelspeed.load('{outcome.folder}')\"")
    code = exit_code(outcome.record, max_drop)
    if code == ACCURACY_LIMIT:
        _say(f"modelspeed: the accuracy drop is above `limits.max_drop` ({max_drop:g}).")
    raise typer.Exit(code)


def show(record: Record, as_json: bool) -> None:
    if as_json:
        sys.stdout.write(record_json.dumps(record) + "\n")
    else:
        console.render(record, Console())


def _say(text: str) -> None:
    sys.stderr.write(text + "\n")


def record_at(path: Path) -> Record:
    """The record in an artifact folder, a manifest or a report.json."""
    from ..core.errors import ArtifactError

    if not path.exists():
        recover(path)  # a killed run may have moved it away
    file = path / "report.json" if path.is_dir() else path
    try:
        return record_json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ArtifactError(f"`{path}` is no artifact and no record: no `{file.name}`.") from error
    except (OSError, UnicodeDecodeError) as error:
        raise ArtifactError(f"`{path}` can't be read: {error}.") from error
