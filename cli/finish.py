"""The end of `tune` and `apply`: the report, the next command, the exit code."""

from __future__ import annotations

import shlex
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import typer
from rich.console import Console

from ..core.exit_codes import ACCURACY_LIMIT, run_exit_code
from ..core.files import read_text
from ..core.records import Record
from ..core.workspace import recover
from ..reporting import console
from ..reporting import json as record_json

if TYPE_CHECKING:
    from ..tuning.delivery import Outcome


def finish(outcome: Outcome, max_drop: float, as_json: bool) -> None:
    """Show the record and exit with the verdict's code."""
    print_record(outcome.record, as_json)
    if outcome.folder is not None:
        # To be pasted into a shell: a folder's name is a word there, and a text in Python.
        line = f"import modelspeed; model = modelspeed.load({str(outcome.folder)!r})"
        shown = shlex.join(["modelspeed", "show", str(outcome.folder)])
        _say(f"\nwritten to {outcome.folder}; next: {shown}")
        _say(f"  python -c {quoted(line)}")
    code = run_exit_code(outcome.record, max_drop)
    if code == ACCURACY_LIMIT:
        _say(f"modelspeed: the accuracy drop is above `limits.max_drop` ({max_drop:g}).")
    elif replace(outcome.record, max_drop=max_drop).limit_in_doubt:
        _say(
            f"modelspeed: the accuracy drop is above `limits.max_drop` ({max_drop:g}) by no more "
            "than chance; the examples that judged keep to it."
        )
    raise typer.Exit(code)


def print_record(record: Record, as_json: bool) -> None:
    if as_json:
        sys.stdout.write(record_json.dumps(record) + "\n")
    else:
        console.render(record, Console())


def quoted(code: str) -> str:
    """`code` as one word of a shell, in double quotes where nothing in it means anything there."""
    return shlex.quote(code) if set(code) & set('"$`\\!') else f'"{code}"'


def _say(text: str) -> None:
    sys.stderr.write(text + "\n")


def record_at(path: Path) -> Record:
    """The record in an artifact folder or a report.json."""
    from ..core.errors import ArtifactError

    if not path.exists():
        recover(path)  # a killed run may have moved it away
    file = path / "report.json" if path.is_dir() else path
    try:
        return record_json.loads(read_text(file))
    except FileNotFoundError as error:
        raise ArtifactError(
            f"`{path}` is neither an artifact nor a record: there is no `{file.name}`."
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        raise ArtifactError(f"`{path}` can't be read: {error}.") from error
