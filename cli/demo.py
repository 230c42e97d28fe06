from __future__ import annotations

from importlib.resources import as_file, files
from pathlib import Path
from typing import Annotated

import typer

from . import options as o
from .errors import shown


def demo(
    out: Annotated[Path, typer.Option("--out", help="folder of the artifact")] = Path("out"),
    speedup: Annotated[float, typer.Option("--speedup", help="times as fast")] = 2.0,
    threads: o.ThreadsOrAutoOption = None,
    force: o.ForceOption = False,
    resume: o.ResumeOption = False,
    json: o.JsonOption = False,
    debug: o.DebugOption = False,
) -> None:
    """Tune the built-in digits ResNet to half of its measured latency."""
    with shown(debug, resumable=True), as_file(files("modelspeed.examples.digits")) as folder:
        from ..configs.machine import MachineFlags
        from ..tuning.tune import tune
        from .finish import finish
        from .job import Asked, job_for, recipe_for
        from .progress import Live

        asked = Asked(
            folder / "digits_resnet.pt", folder / "modelspeed.yaml", target_speedup=speedup
        )
        recipe = recipe_for(asked, "tune")
        job = job_for(asked, recipe, MachineFlags(threads=threads))
        with Live() as talk:
            outcome = tune(job, recipe, talk, out, force=force, resume=resume)
        finish(outcome, recipe.limits.max_drop, json)
