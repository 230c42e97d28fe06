from __future__ import annotations

import json as json_text
import sys
from typing import Annotated

import typer

from ..configs.flags import DEVICE, MACHINE_PANEL, THREADS
from . import options as o
from .errors import shown


def doctor(
    device: Annotated[str | None, o.option(DEVICE)] = None,
    threads: Annotated[int | None, o.option(THREADS)] = None,
    seconds: Annotated[
        float,
        typer.Option("--seconds", min=0.5, help="time to measure", rich_help_panel=MACHINE_PANEL),
    ] = 6.0,
    json: o.JsonOption = False,
    debug: o.DebugOption = False,
) -> None:
    """Look for what would make timings on this machine unreliable."""
    with shown(debug):
        from dataclasses import replace

        from rich.console import Console

        from ..backends.registry import missing
        from ..core.checks import Finding
        from ..core.records_json import to_json
        from ..profiling.doctor import examine
        from ..profiling.machine import check_device, threads as using
        from ..reporting.checks import examination
        from ..reporting.console import print_table

        DEVICE.check(device)
        THREADS.check(threads)
        where = device or "cpu"
        check_device(where)
        sys.stderr.write("measuring a small net against itself ...\n")
        with using(threads or 0):
            result = examine(seconds, device=where)
        runtimes = [
            Finding("runtime", f"`{name}` {reason}", "good", "It may be faster here: see `profile "
                    "--runtimes` once it is installed.")
            for name, reason in missing(where).items()
        ]  # fmt: skip
        result = replace(result, findings=(*result.findings, *runtimes))
        if json:
            sys.stdout.write(json_text.dumps(to_json(result)) + "\n")
            return
        print_table(examination(result), Console())
        m = result.machine
        sys.stdout.write(f"{m.cpu} ({m.isa}), torch {m.torch}; fingerprint {m.fingerprint}\n")
