from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from ..configs import flags as f
from ..configs.machine import RUNTIME, MachineFlags
from . import options as o
from .errors import shown
from .load_flags import LoadFlags
from .takes import Given, takes

FLAGS = ("target_ms", "max_drop", "data", "config", "device", "threads", "runtime", "trust_code",
         "percentile", "batch", "imports")  # fmt: skip
# The rest is what the artifact was made for.
CHANGED = {
    "config": replace(f.CONFIG, help="recipe; ./modelspeed.yaml otherwise"),
    "threads": f.THREADS,
    "runtime": replace(RUNTIME, help="one that the artifact runs on, such as plain"),
}


@takes(LoadFlags, MachineFlags, only=FLAGS, unset=True, changed=CHANGED)
def check(
    folder: o.Folder,
    given: Given,
    against: Annotated[
        Path | None,
        typer.Option(
            help="record or artifact that it must not be slower than",
            rich_help_panel=f.TARGET_PANEL,
        ),
    ] = None,
    trust_compiled: o.TrustCompiledOption = False,
    junit: Annotated[Path | None, o.output("--junit", "write JUnit XML here")] = None,
    summary: Annotated[Path | None, o.output("--summary", "append markdown here")] = None,
    json: o.JsonOption = False,
    debug: o.DebugOption = False,
) -> None:
    """Measure and evaluate an artifact again, for CI: does it still meet its target on this
    machine? Of a ladder each rung, and whether each is still faster than the one above."""
    with shown(debug):
        from ..core.errors import ModelspeedError
        from ..core.user_code import import_all
        from ..checkpoints.ladders import is_ladder
        from .check_asked import asked_for, asked_for_rungs
        from .check_run import fail, finish_check, run_check, run_ladder_check

        import_all(given["imports"] or ())
        flags = {name: value for name, value in given.values.items() if value is not None}
        try:
            if is_ladder(folder):
                rungs = asked_for_rungs(folder, flags, against, given["trust_code"])
                rungs = [replace(asked, trust_compiled=trust_compiled) for asked in rungs]
                result = run_ladder_check(folder, rungs)
            else:
                asked = asked_for(folder, flags, against, given["trust_code"])
                result = run_check(replace(asked, trust_compiled=trust_compiled))
        except ModelspeedError as error:
            fail(folder, str(error), junit, summary)
            raise
        finish_check(result, junit, summary, json)
