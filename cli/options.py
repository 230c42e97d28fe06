"""Flags as typer takes them, and those that belong to no settings: what is written and printed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from ..configs.flags import IGNORE, IMPORTS, MODEL_PANEL, OUTPUT_PANEL, TRUST_PICKLE, Flag
from ..configs.machine import AUTO_THREADS


def option(flag: Flag) -> object:
    """`flag` as a typer option. The settings check its bounds, so that errors read like ours."""
    more: dict[str, Any] = {"metavar": flag.metavar} if flag.metavar else {}
    if flag.metavar == "N|auto":
        more["parser"] = _threads
    return typer.Option(flag.option, help=flag.help, rich_help_panel=flag.panel, **more)


def _threads(text: str) -> int:
    if text == "auto":
        return AUTO_THREADS
    if not (text.isascii() and text.isdigit() and int(text)):
        raise typer.BadParameter(f"`{text}` is not a thread count; give 1 or more, or `auto`.")
    return int(text)


def output(name: str, help: str) -> object:
    """A flag about what is written or printed."""
    return typer.Option(name, help=help, rich_help_panel=OUTPUT_PANEL)


Checkpoint = Annotated[
    Path,
    typer.Argument(help=".pt2, .pt, .ckpt or .safetensors file, or a folder of transformers"),
]
Folder = Annotated[Path, typer.Argument(help="artifact folder")]
RecordAt = Annotated[Path, typer.Argument(help="artifact folder or report.json")]
LadderOutOption = Annotated[Path | None, output("--out", "folder of the ladder")]
OutOption = Annotated[Path | None, output("--out", "folder of the artifact")]
ForceOption = Annotated[bool, output("--force", "replace what is there")]
ResumeOption = Annotated[bool, output("--resume", "go on with an interrupted run of the same job")]
DryOption = Annotated[bool, output("--dry-run", "measure and plan; write nothing")]
JsonOption = Annotated[bool, output("--json", "print JSON on stdout")]
DebugOption = Annotated[bool, output("--debug", "show tracebacks")]
TrustOption = Annotated[bool, option(TRUST_PICKLE)]
IgnoreOption = Annotated[list[str] | None, option(IGNORE)]
ImportOption = Annotated[list[str] | None, option(IMPORTS)]
TrustCompiledOption = Annotated[
    bool,
    typer.Option(
        "--trust-compiled", help="run compiled code that came with the artifact",
        rich_help_panel=MODEL_PANEL,
    ),
]  # fmt: skip
