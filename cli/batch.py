from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from . import options as o
from .errors import shown


def batch(
    jobs: Annotated[list[str], typer.Argument(help="jobs.yaml, or checkpoints and patterns")],
    out: o.OutOption = None,
    target_ms: o.TargetMsOption = None,
    target_speedup: o.TargetSpeedupOption = None,
    fastest: o.FastestOption = False,
    max_drop: o.MaxDropOption = None,
    input_size: o.InputSizeOption = None,
    model: o.ModelOption = None,
    data: o.DataOption = None,
    inputs: o.InputsOption = None,
    config: o.ConfigOption = None,
    preset: o.PresetOption = None,
    device: Annotated[str | None, typer.Option("--device", help="cpu, cuda or cuda:N")] = None,
    threads: o.ThreadsOption = None,
    runtime: Annotated[str | None, typer.Option("--runtime", help="plain or lowered")] = None,
    percentile: o.PercentileOption = None,
    batch: o.BatchOption = None,
    seed: Annotated[int | None, typer.Option("--seed", help="of everything random")] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="how many run at a time")] = None,
    retries: Annotated[int | None, typer.Option(min=0, help="attempts after a crash")] = None,
    memory_limit: Annotated[str | None, typer.Option(help="most memory of one, as 4GB")] = None,
    minutes: Annotated[float | None, typer.Option(min=0.01, help="most time for one")] = None,
    ray: Annotated[
        str | None, typer.Option("--ray", help="run on a Ray cluster: its address, or auto")
    ] = None,
    keep_going: Annotated[
        bool, typer.Option("--keep-going/--fail-fast", help="go on after one has failed")
    ] = True,
    resume: Annotated[
        bool, typer.Option("--resume", help="go on where an interrupted batch was; failed stay so")
    ] = False,
    force: o.ForceOption = False,
    json: o.JsonOption = False,
    trust_pickle: o.TrustOption = False,
    trust_code: o.TrustCodeOption = False,
    without_data: o.WithoutDataOption = False,
    ignore: o.IgnoreOption = None,
    imports: o.ImportOption = None,
    debug: o.DebugOption = False,
) -> None:
    """Tune many checkpoints; a crash of one is a row of the index. What is done stays done."""
    with shown(debug, resumable=True, left="what was done stays done"):
        from ..configs.entries import entries
        from ..configs.jobs import JobSettings
        from .batch_options import check_flags, options_for
        from .batch_run import run
        from .batch_trust import say_code
        from .job import absolute_files

        flags = JobSettings.model_construct(
            target_ms=target_ms, target_speedup=target_speedup, fastest=fastest or None,
            max_drop=max_drop, model=model, data=data, inputs=inputs, preset=preset,
            config=str(config) if config else None, device=device, threads=threads,
            runtime=runtime, percentile=percentile, batch=batch, seed=seed,
            input_size=input_size, without_data=without_data or None,
            ignore=tuple(ignore) if ignore else None,
        )  # fmt: skip
        check_flags(flags)
        asked, file, base = entries(jobs, flags, Path.cwd())
        options = options_for(
            file, base, out=out, workers=workers, retries=retries, minutes=minutes,
            memory_limit=memory_limit, keep_going=keep_going, resume=resume,
        )  # fmt: skip
        say_code(asked, Path(jobs[0]) if file else None, flags, trust_code)
        run(
            asked,
            options,
            force=force,
            trust_pickle=trust_pickle,
            trust_code=trust_code,
            as_json=json,
            ray=ray,
            imports=absolute_files(imports or ()),
        )
