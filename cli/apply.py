from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..configs.machine import MachineFlags
from . import options as o
from .errors import shown
from .launch import joined, usual_threads
from .load_flags import GOALS, LoadFlags
from .takes import Given, takes


@takes(LoadFlags, MachineFlags, leave_out=GOALS)
def apply(
    checkpoint: o.Checkpoint,
    given: Given,
    recipe_file: Annotated[
        Path | None, typer.Argument(metavar="RECIPE", help="recipe with fixed settings")
    ] = None,
    out: o.OutOption = None,
    force: o.ForceOption = False,
    resume: o.ResumeOption = False,
    json: o.JsonOption = False,
    dry_run: o.DryOption = False,
    debug: o.DebugOption = False,
) -> None:
    """Run RECIPE on CHECKPOINT exactly as it is written, without a search."""
    with shown(debug, resumable=not dry_run), joined(given["device"]) as leads:
        if not leads:
            return
        from ..tuning.apply import apply_recipe
        from .finish import finish
        from .job import default_out, job_and_recipe
        from .progress import Live

        machine = given.make(MachineFlags, threads=given["threads"] or usual_threads())
        config = recipe_file or given["config"]
        load = given.make(LoadFlags, checkpoint=checkpoint, config=config)
        job, recipe = job_and_recipe(load, machine, "apply")
        with Live() as progress:
            outcome = apply_recipe(
                job, recipe, progress, out or default_out(checkpoint), force=force, dry_run=dry_run,
                resume=resume,
            )  # fmt: skip
        finish(outcome, recipe.limits.max_drop, json)
