"""Checks that `profile` makes before it measures anything, and the file of its `--out`."""

from __future__ import annotations

import sys
from pathlib import Path

from ..checkpoints.detect import is_script
from ..core.errors import UsageError
from ..core.files import write_whole
from ..core.records import Record
from ..reporting import html
from ..reporting import json as record_json
from .load_flags import LoadFlags


def refuse_unused(load: LoadFlags) -> None:
    """Raises UsageError for a flag that would be dropped without a word."""
    if load.data is not None:
        raise UsageError(
            "`profile` measures latency alone, so it takes no `--data`; `tune --dry-run` also "
            "evaluates the original."
        )
    if (load.model or load.ignore) and is_script(load.checkpoint):
        flag = "--model" if load.model else "--ignore"
        raise UsageError(
            f"`{load.checkpoint}` is a TorchScript archive, which runs as it is; it takes no "
            f"`{flag}`."
        )


def check_out(out: Path | None, force: bool) -> None:
    """Raises UsageError where the file is there, or can't be, so that no time is lost."""
    if out is None:
        return
    if out.is_dir():
        raise UsageError(f"`--out` is `{out}`, a folder; name a file in it.")
    if not out.absolute().parent.is_dir():
        raise UsageError(f"`--out` is `{out}`, but there is no folder `{out.parent}`.")
    if out.is_file() and not force:
        raise UsageError(f"`{out}` already exists; pass `--force` or another `--out`.")


def write_record(record: Record, out: Path | None) -> None:
    """The record as JSON, or as the HTML report where the name ends in `.html`."""
    if out is None:
        return
    render = html.render if out.suffix.lower() == ".html" else record_json.dumps
    write_whole(out, render(record) + "\n")
    sys.stderr.write(f"written to {out}\n")
