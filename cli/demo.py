from __future__ import annotations

from importlib.resources import as_file, files
from pathlib import Path
from typing import Annotated

import typer

from ..configs.flags import TARGET_PANEL
from ..configs.machine import MachineFlags
from . import options as o
from .errors import shown
from .load_flags import LoadFlags
from .takes import Given, takes


@takes(MachineFlags, only=("threads",))
def demo(
    speedup: Annotated[
        float, typer.Option("--speedup", help="times as fast", rich_help_panel=TARGET_PANEL)
    ] = 2.0,
    *,
    given: Given,
    out: Annotated[Path, o.output("--out", "folder of the artifact")] = Path("out"),
    force: o.ForceOption = False,
    resume: o.ResumeOption = False,
    json: o.JsonOption = False,
    debug: o.DebugOption = False,
) -> None:
    """Tune the built-in digits ResNet to half of its measured latency."""
    with shown(debug, resumable=True), as_file(files("modelspeed.examples.digits")) as folder:
        from ..tuning.tune import tune
        from .finish import finish
        from .job import job_for, recipe_for
        from .progress import Live

        load = LoadFlags(
            folder / "digits_resnet.pt", config=folder / "modelspeed.yaml", target_speedup=speedup
        )
        recipe = recipe_for(load, "tune")
        job = job_for(load, recipe, given.make(MachineFlags))
        with Live() as talk:
            outcome = tune(job, recipe, talk, out, force=force, resume=resume)
        finish(outcome, recipe.limits.max_drop, json)
