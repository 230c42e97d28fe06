"""The run of `check` and its end: the files it writes, the exit code."""

from __future__ import annotations

import errno
import json as json_text
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import typer
from rich.console import Console

from ..core.checks import Check
from ..core.exit_codes import check_exit_code
from ..core.files import write_whole
from ..core.records_json import to_json
from ..reporting import checks
from ..reporting.console import print_table
from ..reporting.text import clean

if TYPE_CHECKING:
    from ..tuning.check import CheckRequest


def run_check(request: CheckRequest) -> Check:
    from ..tuning.check import check
    from .progress import Live

    with Live() as progress:
        return check(request, progress)


def run_ladder_check(folder: Path, requests: Sequence[CheckRequest]) -> Check:
    from ..tuning.ladder.check import check_ladder
    from .progress import Live

    with Live() as progress:
        return check_ladder(folder, requests, progress)


def fail(folder: Path, error: str, junit: Path | None, summary: Path | None) -> None:
    """A check that could not be made is an error in the files too."""
    if junit:
        write_whole(junit, checks.junit(str(folder), (), error))
    if summary:
        _append(summary, clean(f"### modelspeed check `{folder}`\n\n**failed**: {error}\n"))


def finish_check(result: Check, junit: Path | None, summary: Path | None, as_json: bool) -> None:
    if junit:
        write_whole(junit, checks.junit(result.folder, result.cases))
    if summary:
        _append(summary, checks.check_summary(result))
    if as_json:
        sys.stdout.write(json_text.dumps(to_json(result)) + "\n")
    else:
        print_table(checks.check_table(result), Console())
    raise typer.Exit(check_exit_code(result.cases))


def _append(path: Path, text: str) -> None:
    # Other steps of the CI job write to this file, too: add our whole section or none of it.
    size = path.stat().st_size if path.exists() else 0
    with path.open("ab", buffering=0) as file:
        try:
            if file.write(data := text.encode()) != len(data):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError:
            with suppress(OSError):  # a pipe
                file.truncate(size)
            raise
