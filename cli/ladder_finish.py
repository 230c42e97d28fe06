"""The end of `ladder`: the rungs, the next command, the exit code; and a ladder shown again."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import typer
from rich.console import Console
from rich.markup import escape

from ..configs.recipe import Recipe
from ..core.exit_codes import ACCURACY_LIMIT, ladder_exit_code
from ..core.ladder_record import LADDER, LadderRecord, ladder_to_json
from ..reporting import ladder_facts
from ..reporting.console import print_table
from ..reporting.ladder import ladder_csv, ladder_html, ladder_markdown
from ..reporting.text import clean
from .job import default_out

if TYPE_CHECKING:
    from ..tuning.ladder.build import LadderOutcome


def default_ladder_out(checkpoint: Path) -> Path:
    return Path(f"{str(default_out(checkpoint)).removesuffix('-fast')}-ladder")


def finish_ladder(outcome: LadderOutcome, recipe: Recipe, as_json: bool) -> None:
    """Show the record and exit with the code of the targets that were named."""
    print_ladder(outcome.record, as_json)
    folder = str(outcome.folder)
    shown = shlex.join(["modelspeed", "show", folder])
    sys.stderr.write(f"\nwritten to {folder}; next: {shown}\n")
    sys.stderr.write(f"  ladder = modelspeed.load({folder!r}); y = ladder(x, budget_ms=4)\n")
    broken = _limit_broken(outcome.record, recipe)
    code = ladder_exit_code(outcome.verdicts, broken)
    if code == ACCURACY_LIMIT:
        limit = recipe.limits.max_drop
        sys.stderr.write(
            f"modelspeed: the accuracy drop of a rung is above `limits.max_drop` ({limit:g}).\n"
        )
    raise typer.Exit(code)


def print_ladder(record: LadderRecord, as_json: bool) -> None:
    if as_json:
        sys.stdout.write(ladder_to_json(record) + "\n")
        return
    console = Console()
    console.print(f"[bold cyan]{escape(clean(ladder_facts.ladder_headline(record)))}[/]")
    for name, value in ladder_facts.ladder_key_facts(record):
        console.print(f"[dim]{escape(clean(name))}[/]  {escape(clean(value))}")
    for table in ladder_facts.ladder_tables(record):
        print_table(table, console)


def ladder_at(path: Path) -> LadderRecord | None:
    """The record of a ladder's folder, or of its `ladder.json`; None for anything else."""
    from ..checkpoints.ladders import is_ladder, read_ladder

    folder = path.parent if path.name == LADDER else path
    return read_ladder(folder) if is_ladder(folder) else None


def show_ladder(record: LadderRecord, format: str) -> None:
    if format in ("console", "json"):
        print_ladder(record, format == "json")
        return
    texts = {"md": ladder_markdown, "html": ladder_html, "csv": ladder_csv}
    sys.stdout.write(texts[format](record) + "\n")


def _limit_broken(record: LadderRecord, recipe: Recipe) -> bool:
    """Only by a limit that the user set: lower rungs are there to give up accuracy."""
    if "max_drop" not in recipe.limits.model_fields_set:
        return False
    known = [rung.accuracy for rung in record.rungs if rung.accuracy is not None]
    return bool(known) and known[0] - min(known) > recipe.limits.max_drop + 1e-9
