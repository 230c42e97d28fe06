from __future__ import annotations

from typing import Annotated

import typer

from ..configs import flags as f
from ..configs.machine import MachineFlags
from . import options as o
from .errors import shown
from .launch import joined, usual_threads
from .load_flags import LoadFlags
from .takes import Given, takes

NO_TARGET = ("target_ms", "target_speedup", "fastest")


@takes(LoadFlags, MachineFlags, leave_out=NO_TARGET)
def ladder(
    checkpoint: o.Checkpoint,
    given: Given,
    rungs: Annotated[
        int | None,
        typer.Option(
            help="how many, from the original to the fastest; 4 otherwise",
            rich_help_panel=f.TARGET_PANEL,
        ),
    ] = None,
    targets_ms: Annotated[
        str | None,
        typer.Option(
            help="alternative to --rungs: a latency each, such as 2,4,8",
            rich_help_panel=f.TARGET_PANEL, metavar="MS,MS,...",
        ),
    ] = None,
    speedups: Annotated[
        str | None,
        typer.Option(
            help="alternative to --rungs: times as fast as the original, such as 1,2,4,8",
            rich_help_panel=f.TARGET_PANEL, metavar="X,X,...",
        ),
    ] = None,
    out: o.LadderOutOption = None,
    force: o.ForceOption = False,
    resume: o.ResumeOption = False,
    json: o.JsonOption = False,
    debug: o.DebugOption = False,
) -> None:  # fmt: skip
    """Make several variants of CHECKPOINT, the original and faster ones, from one search: the
    program that serves them takes for each request the most accurate that is fast enough."""
    with shown(debug, resumable=True), joined(given["device"]) as leads:
        if not leads:
            return
        from ..tuning.ladder.build import build_ladder
        from ..tuning.ladder.goals import RungGoals, numbers_of
        from .job import job_and_recipe
        from .ladder_finish import default_ladder_out, finish_ladder
        from .progress import Live

        goals = RungGoals(
            rungs, numbers_of("--targets-ms", targets_ms), numbers_of("--speedups", speedups)
        )
        machine = given.make(MachineFlags, threads=given["threads"] or usual_threads())
        load = given.make(LoadFlags, checkpoint=checkpoint)
        job, recipe = job_and_recipe(load, machine, "tune")
        with Live() as progress:
            outcome = build_ladder(
                job, recipe, goals, progress, out or default_ladder_out(checkpoint), force=force,
                resume=resume,
            )  # fmt: skip
        finish_ladder(outcome, recipe, json)
