"""The command line: one verb a file, assembled here."""

from __future__ import annotations

import errno
import io
import os
import signal
import sys
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from .apply import apply
from .batch import batch
from .check import check
from .compare import compare
from .demo import demo
from .doctor import doctor
from .export import export
from .init import init
from .ladder import ladder
from .ladder_simulate import ladder_simulate
from .list import list_all
from .profile import profile
from .show import show
from .tune import tune

SIMULATE = "ladder simulate"


class Verbs(TyperGroup):
    """Verbs of one word, and one of two beside the verb that is its first."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        both = " ".join(args[:2])
        return super().resolve_command(ctx, [both, *args[2:]] if both == SIMULATE else args)


app = typer.Typer(
    cls=Verbs, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False,
    help="The most accurate variant of a PyTorch checkpoint that meets a latency target here.",
)  # fmt: skip


@app.callback(invoke_without_command=True)
def root(
    show_version: Annotated[bool, typer.Option("--version", help="show the version")] = False,
) -> None:
    if show_version:
        from importlib.metadata import version

        sys.stdout.write(f"modelspeed {version('modelspeed')}\n")
        raise typer.Exit


for verb in (tune, ladder, apply, batch, check, profile, compare, show, init, export, doctor, demo):
    app.command()(verb)
app.command("list")(list_all)
app.command(SIMULATE)(ladder_simulate)


def main() -> None:
    # A job that is told to end (kill, a CI runner's limit) cleans up as after Ctrl-C.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    for stream in (sys.stdout, sys.stderr):  # some encodings lack a character
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        try:
            app()
        finally:
            sys.stdout.flush()  # the interpreter's own flush would end in a traceback and 120
    except OSError as error:
        if "--debug" in sys.argv:
            raise
        _unwritten(error)


def _unwritten(error: OSError) -> None:
    """Stdout takes no more. Raises SystemExit."""
    # What is left in its buffer is not tried again at the end.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    if error.errno != errno.EPIPE:  # `| head` has seen enough
        reason = "the disk is full" if error.errno == errno.ENOSPC else str(error)
        sys.stderr.write(f"modelspeed: {reason}.\n")
    sys.exit(1)
