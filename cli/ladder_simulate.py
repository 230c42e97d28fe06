from __future__ import annotations

import json as json_text
import sys
from pathlib import Path
from typing import Annotated

import typer

from ..configs import flags as f
from . import options as o
from .errors import shown

ENOUGH = 0.999  # of the requests in time


def ladder_simulate(
    folder: Annotated[Path, typer.Argument(help="folder of a ladder")],
    arrivals: Annotated[
        str,
        typer.Option(
            help="poisson:RATE, mmpp:LOW,HIGH,STAY (requests a second, seconds in each state) or "
            "a CSV file of seconds",
            rich_help_panel=f.TARGET_PANEL,
        ),
    ],
    slo_ms: Annotated[
        float, typer.Option(help="time that each request has", rich_help_panel=f.TARGET_PANEL)
    ],
    seconds: Annotated[
        float, typer.Option(help="of drawn arrivals", rich_help_panel=f.TARGET_PANEL)
    ] = 60.0,
    replicas: Annotated[
        str,
        typer.Option(
            help="machines with a stream each: 2, or 1..8 to find how many it takes",
            rich_help_panel=f.TARGET_PANEL,
        ),
    ] = "1",
    seed: Annotated[
        int, typer.Option(help=f.SEED.help, rich_help_panel=f.MACHINE_PANEL)
    ] = 0,
    json: o.JsonOption = False,
    debug: o.DebugOption = False,
) -> None:  # fmt: skip
    """Simulate a stream of FOLDER under a load, from its measured samples: the share of requests
    in time, the accuracy, the machines it takes; and the same with each rung alone."""
    with shown(debug):
        from rich.console import Console

        from ..checkpoints.ladders import read_ladder
        from ..core.errors import UsageError
        from ..core.records_json import to_json
        from ..reporting.console import print_table
        from ..reporting.simulated import simulated_table
        from ..runtime.ladder.arrivals import arrivals_of
        from ..runtime.ladder.simulation import replica_counts, rung_times_of, simulate_stream

        if not (0.0 < slo_ms < float("inf") and 0.0 < seconds < float("inf")):
            raise UsageError("`--slo-ms` and `--seconds` must be above 0.")
        counts = replica_counts(replicas)
        rungs = rung_times_of(read_ladder(folder))
        times = arrivals_of(arrivals, seconds, seed)
        rows = {
            name: [simulate_stream(own, times, slo_ms, replicas=n, seed=seed) for n in counts]
            for name, own in (("ladder", rungs), *((r.name, [r]) for r in rungs))
        }
        if not json:
            print_table(simulated_table(rows, ENOUGH), Console())
            return
        facts = {
            name: [
                {**to_json(one), "attainment": one.attainment, "accuracy": one.accuracy}
                for one in found
            ]
            for name, found in rows.items()
        }
        sys.stdout.write(json_text.dumps(facts) + "\n")
