from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..configs.machine import MachineFlags
from . import options as o
from .errors import shown
from .load_flags import GOALS, LoadFlags
from .takes import Given, takes


@takes(
    LoadFlags,
    MachineFlags,
    leave_out=(*GOALS, "data", "input_size", "preset", "without_data", "minutes", "runtime"),
)
def profile(
    checkpoint: o.Checkpoint,
    given: Given,
    data: Annotated[str | None, typer.Option("--data", hidden=True)] = None,
    groups: Annotated[
        bool, o.output("--groups", "list channel groups: size, members, why some are whole")
    ] = False,
    runtimes: Annotated[
        bool, o.output("--runtimes", "time it as it is, lowered and compiled, side by side")
    ] = False,
    out: Annotated[
        Path | None, o.output("--out", "file to write the record to: JSON, or NAME.html")
    ] = None,
    force: o.ForceOption = False,
    json: o.JsonOption = False,
    debug: o.DebugOption = False,
) -> None:
    """Measure CHECKPOINT as it is: latency with its interval, and every layer."""
    with shown(debug):
        from ..tuning.profile import profile as run
        from .finish import print_record
        from .job import announce_code, job_for, recipe_for
        from .profile_flags import check_out, refuse_unused, write_record
        from .progress import Live

        machine = given.make(MachineFlags, runtime="plain")
        load = given.make(LoadFlags, checkpoint=checkpoint, data=data)
        refuse_unused(load)
        check_out(out, force)
        recipe = recipe_for(load, "tune").model_copy(update={"data": None})
        announce_code(load, recipe)
        job = job_for(load, recipe, machine)
        with Live() as progress:
            outcome = run(job, recipe, progress, groups, runtimes)
        print_record(outcome.record, json)
        write_record(outcome.record, out)
