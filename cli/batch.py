from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..configs import flags as f
from ..configs.machine import MachineFlags
from . import options as o
from .errors import shown
from .load_flags import LoadFlags
from .takes import Given, takes


@takes(LoadFlags, MachineFlags, unset=True, leave_out=("minutes",), changed={"threads": f.THREADS})
def batch(
    jobs: Annotated[list[str], typer.Argument(help="jobs.yaml, or checkpoints and patterns")],
    given: Given,
    workers: Annotated[int | None, o.option(f.WORKERS)] = None,
    retries: Annotated[int | None, o.option(f.RETRIES)] = None,
    memory_limit: Annotated[str | None, o.option(f.MEMORY_LIMIT)] = None,
    minutes: Annotated[float | None, o.option(f.MINUTES)] = None,
    ray: Annotated[str | None, o.option(f.RAY)] = None,
    out: Annotated[Path | None, o.output("--out", "folder of all artifacts")] = None,
    force: o.ForceOption = False,
    keep_going: Annotated[
        bool, o.output("--keep-going/--fail-fast", "go on after one has failed")
    ] = True,
    resume: Annotated[
        bool, o.output("--resume", "go on where an interrupted batch was; failed stay so")
    ] = False,
    json: o.JsonOption = False,
    debug: o.DebugOption = False,
) -> None:
    """Tune many checkpoints. Failures are reported in the index and do not stop the rest; finished
    work is kept."""
    with shown(debug, resumable=True, left="finished work is kept"):
        from ..configs.entries import entries
        from .batch_options import check_flags, options_for, settings_of
        from .batch_run import run_jobs
        from .batch_trust import announce_batch_code
        from .job import absolute_files

        flags = settings_of(given.values)
        check_flags(flags)
        asked, file, base = entries(jobs, flags, Path.cwd())
        options = options_for(
            file, base, out=out, workers=workers, retries=retries, minutes=minutes,
            memory_limit=memory_limit, keep_going=keep_going, resume=resume,
        )  # fmt: skip
        announce_batch_code(asked, Path(jobs[0]) if file else None, flags, given["trust_code"])
        run_jobs(
            asked,
            options,
            force=force,
            trust_pickle=given["trust_pickle"],
            trust_code=given["trust_code"],
            as_json=json,
            ray=ray,
            imports=absolute_files(given["imports"] or ()),
        )
