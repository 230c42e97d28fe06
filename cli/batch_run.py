"""The run of `batch` and its end: progress, the index, the exit code."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from datetime import datetime, timezone
from importlib.metadata import version
from typing import TYPE_CHECKING

import typer
from rich.console import Console

from ..configs.entries import BatchEntry
from ..core.exit_codes import batch_exit_code
from ..core.files import write_whole
from ..core.items import Index, Item
from ..reporting import batch_index
from ..reporting.console import print_table
from .batch_jobs import plans_for
from .batch_progress import BatchLive

if TYPE_CHECKING:
    from ..batch.plan import Options


def run_jobs(
    jobs: Sequence[BatchEntry],
    options: Options,
    *,
    force: bool,
    trust_pickle: bool,
    trust_code: bool,
    as_json: bool,
    ray: str | None = None,
    imports: Sequence[str] = (),
) -> None:
    """Run all, write the index whatever happens, exit with the most telling code."""
    from ..batch.journal import BatchJournal
    from ..batch.ray_run import run_on_ray
    from ..batch.run import rows_of, run_batch
    from ..profiling.gate import usual_folder

    started = time.monotonic()
    plans = plans_for(
        jobs,
        options.out,
        force=force,
        trust_pickle=trust_pickle,
        trust_code=trust_code,
        imports=imports,
    )
    with BatchJournal.open(options.out) as journal:
        try:
            with BatchLive() as watch:
                if ray:
                    run_on_ray(plans, options, journal, watch, address=ray)
                else:
                    run_batch(plans, options, journal, watch, gate=usual_folder())
        finally:
            index = _index(rows_of(plans, journal), time.monotonic() - started)
            _write(index, options)
    if as_json:
        sys.stdout.write(batch_index.index_to_json(index))
    else:
        print_table(batch_index.index_table(index), Console())
    sys.stderr.write(f"\nwritten to {options.out / 'index.html'} (also .md and .json)\n")
    raise typer.Exit(batch_exit_code(index.items))


def _index(items: tuple[Item, ...], seconds: float) -> Index:
    from ..profiling.machine import fingerprint

    now = datetime.now(timezone.utc).isoformat(timespec="seconds")
    return Index(now, version("modelspeed"), fingerprint(), items, round(seconds, 1))


def _write(index: Index, options: Options) -> None:
    texts = {
        "index.html": batch_index.page(index), "index.md": batch_index.markdown(index),
        "index.json": batch_index.index_to_json(index),
    }  # fmt: skip
    for name, text in texts.items():
        write_whole(options.out / name, text)
