from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from . import options as o
from .errors import shown


def check(
    folder: Annotated[Path, typer.Argument(help="artifact folder")],
    target_ms: o.TargetMsOption = None,
    max_drop: o.MaxDropOption = None,
    against: Annotated[
        Path | None, typer.Option(help="record or artifact that it must not be slower than")
    ] = None,
    data: o.DataOption = None,
    config: o.ConfigOption = None,
    device: Annotated[str | None, typer.Option("--device", help="cpu, cuda or cuda:N")] = None,
    threads: o.ThreadsOption = None,
    runtime: Annotated[str | None, typer.Option("--runtime", help="such as plain")] = None,
    trust_compiled: Annotated[
        bool, typer.Option("--trust-compiled", help="run compiled code that came with the artifact")
    ] = False,
    trust_code: o.TrustCodeOption = False,
    percentile: o.PercentileOption = None,
    batch: o.BatchOption = None,
    junit: Annotated[Path | None, typer.Option(help="write JUnit XML here")] = None,
    summary: Annotated[Path | None, typer.Option(help="append markdown here")] = None,
    imports: o.ImportOption = None,
    json: o.JsonOption = False,
    debug: o.DebugOption = False,
) -> None:
    """Measure and evaluate an artifact again, for CI: does it still hold its promises here?"""
    with shown(debug):
        from ..core.user_code import import_all
        from ..configs.entries import set_values
        from ..configs.jobs import JobSettings
        from ..core.errors import ModelspeedError
        from .check_asked import asked_for
        from .check_run import fail, finish, run

        import_all(imports or ())
        flags = JobSettings.model_construct(
            target_ms=target_ms, max_drop=max_drop, data=data, device=device, threads=threads,
            runtime=runtime, percentile=percentile, batch=batch,
            config=str(config) if config else None,
        )  # fmt: skip
        try:
            asked = asked_for(folder, set_values(flags), against, trust_code)
            found = run(replace(asked, trust_compiled=trust_compiled))
        except ModelspeedError as error:
            fail(folder, str(error), junit, summary)
            raise
        finish(found, junit, summary, json)
