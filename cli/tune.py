from __future__ import annotations

from ..configs.machine import MachineFlags
from . import options as o
from .errors import shown
from .launch import joined, usual_threads
from .load_flags import LoadFlags
from .takes import Given, takes


@takes(LoadFlags, MachineFlags)
def tune(
    checkpoint: o.Checkpoint,
    given: Given,
    out: o.OutOption = None,
    force: o.ForceOption = False,
    resume: o.ResumeOption = False,
    json: o.JsonOption = False,
    dry_run: o.DryOption = False,
    debug: o.DebugOption = False,
) -> None:
    """Find the most accurate variant of CHECKPOINT that meets a latency target here."""
    with shown(debug, resumable=not dry_run), joined(given["device"]) as leads:
        if not leads:
            return
        from ..tuning.tune import tune as run
        from .finish import finish
        from .job import default_out, job_and_recipe
        from .progress import Live

        machine = given.make(MachineFlags, threads=given["threads"] or usual_threads())
        load = given.make(LoadFlags, checkpoint=checkpoint)
        job, recipe = job_and_recipe(load, machine, "tune")
        with Live() as progress:
            outcome = run(
                job, recipe, progress, out or default_out(checkpoint), force=force, dry_run=dry_run,
                resume=resume,
            )  # fmt: skip
        finish(outcome, recipe.limits.max_drop, json)
