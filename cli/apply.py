from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..core.runtimes import DEFAULT_RUNTIME
from . import options as o
from .errors import shown
from .launch import joined, usual_threads


def apply(
    checkpoint: o.Checkpoint,
    recipe_file: Annotated[
        Path | None, typer.Argument(metavar="RECIPE", help="recipe with fixed settings")
    ] = None,
    model: o.ModelOption = None,
    data: o.DataOption = None,
    inputs: o.InputsOption = None,
    input_size: o.InputSizeOption = None,
    config: o.ConfigOption = None,
    preset: o.PresetOption = None,
    out: o.OutOption = None,
    force: o.ForceOption = False,
    device: o.DeviceOption = "cpu",
    threads: o.ThreadsOrAutoOption = None,
    runtime: o.RuntimeOption = DEFAULT_RUNTIME,
    percentile: o.PercentileOption = None,
    batch: o.BatchOption = None,
    seed: o.SeedOption = 0,
    resume: o.ResumeOption = False,
    json: o.JsonOption = False,
    dry_run: o.DryOption = False,
    without_data: o.WithoutDataOption = False,
    trust_pickle: o.TrustOption = False,
    trust_code: o.TrustCodeOption = False,
    ignore: o.IgnoreOption = None,
    imports: o.ImportOption = None,
    debug: o.DebugOption = False,
) -> None:
    """Run RECIPE on CHECKPOINT exactly as it is written, without a search."""
    with shown(debug, resumable=not dry_run), joined(device) as leads:
        if not leads:
            return
        from ..configs.machine import MachineFlags
        from ..tuning.apply import apply_recipe
        from .finish import finish
        from .job import Asked, default_out, job_for, recipe_for, say_code
        from .progress import Live

        flags = MachineFlags(device, threads or usual_threads(), runtime, percentile, batch, seed)  # type: ignore[arg-type]
        asked = Asked(
            checkpoint, recipe_file or config, preset, model, data, inputs, trust_pickle,
            without_data, input_size=input_size, trust_code=trust_code,
            ignore=tuple(ignore or ()),
            imports=tuple(imports or ()),
        )  # fmt: skip
        recipe = recipe_for(asked, "apply")
        say_code(asked, recipe)
        job = job_for(asked, recipe, flags)
        with Live() as talk:
            outcome = apply_recipe(
                job, recipe, talk, out or default_out(checkpoint), force=force, dry_run=dry_run,
                resume=resume,
            )  # fmt: skip
        finish(outcome, recipe.limits.max_drop, json)
