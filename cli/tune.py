from __future__ import annotations

from ..core.runtimes import DEFAULT_RUNTIME
from . import options as o
from .errors import shown
from .launch import joined, usual_threads


def tune(
    checkpoint: o.Checkpoint,
    target_ms: o.TargetMsOption = None,
    target_speedup: o.TargetSpeedupOption = None,
    fastest: o.FastestOption = False,
    max_drop: o.MaxDropOption = None,
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
    """Find the most accurate variant of CHECKPOINT that meets a latency target here."""
    with shown(debug, resumable=not dry_run), joined(device) as leads:
        if not leads:
            return
        from ..configs.machine import MachineFlags
        from ..tuning.tune import tune as run
        from .finish import finish
        from .job import Asked, default_out, job_for, recipe_for, say_code
        from .progress import Live

        flags = MachineFlags(device, threads or usual_threads(), runtime, percentile, batch, seed)  # type: ignore[arg-type]
        asked = Asked(
            checkpoint, config, preset, model, data, inputs, trust_pickle, without_data,
            target_ms, target_speedup, fastest, max_drop, input_size, trust_code,
            tuple(ignore or ()), tuple(imports or ()),
        )  # fmt: skip
        recipe = recipe_for(asked, "tune")
        say_code(asked, recipe)
        job = job_for(asked, recipe, flags)
        with Live() as talk:
            outcome = run(
                job, recipe, talk, out or default_out(checkpoint), force=force, dry_run=dry_run,
                resume=resume,
            )  # fmt: skip
        finish(outcome, recipe.limits.max_drop, json)
