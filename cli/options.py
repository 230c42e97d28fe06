"""The options that `tune`, `apply` and `profile` share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..core.runtimes import RUNTIMES


def _threads(text: str) -> int:
    if text == "auto":
        from ..configs.machine import AUTO_THREADS  # not for `--help`

        return AUTO_THREADS
    if not (text.isascii() and text.isdigit() and int(text)):
        raise typer.BadParameter(f"`{text}` is no thread count; give 1 or more, or `auto`.")
    return int(text)


Checkpoint = Annotated[
    Path,
    typer.Argument(help=".pt2, .pt, .ckpt or .safetensors file, or a folder of transformers"),
]
ModelOption = Annotated[
    str | None,
    typer.Option("--model", help="what builds it: FILE.py:NAME, torchvision:NAME, timm:NAME"),
]
DataOption = Annotated[
    str | None,
    typer.Option("--data", help="FILE.py:NAME, folder:DIR, arrays:FILE or datasets:NAME"),
]
InputsOption = Annotated[
    str | None,
    typer.Option("--inputs", help="such as 1x3x224x224:float32 or ids=1x128:int64:0..999"),
]
ConfigOption = Annotated[
    Path | None, typer.Option("--config", help="recipe; found beside the checkpoint otherwise")
]
PresetOption = Annotated[str | None, typer.Option("--preset", help="steps of a built-in recipe")]
DeviceOption = Annotated[str, typer.Option("--device", help="cpu, cuda or cuda:N")]
ThreadsOption = Annotated[int | None, typer.Option("--threads", min=1, help="CPU threads")]
ThreadsOrAutoOption = Annotated[
    int | None,
    typer.Option("--threads", parser=_threads, metavar="N|auto", help="CPU threads; auto: fastest"),
]
RuntimeOption = Annotated[
    str, typer.Option("--runtime", help=" or ".join((", ".join(RUNTIMES[:-1]), RUNTIMES[-1])))
]
PercentileOption = Annotated[
    float | None, typer.Option("--percentile", help="percentile of latency that counts")
]
BatchOption = Annotated[int | None, typer.Option("--batch", min=1, help="rows per call")]
TargetMsOption = Annotated[
    float | None, typer.Option("--target-ms", help="latency that must be met (ms)")
]
TargetSpeedupOption = Annotated[
    float | None, typer.Option("--target-speedup", help="or: times as fast as the original")
]
FastestOption = Annotated[
    bool, typer.Option("--fastest", help="or: as fast as the accuracy limit allows")
]
MaxDropOption = Annotated[
    float | None, typer.Option("--max-drop", help="accuracy limit, such as 0.01")
]
InputSizeOption = Annotated[
    str | None,
    typer.Option("--input-size", help="run at 160 pixels (160x200: height x width) or tokens"),
]
OutOption = Annotated[Path | None, typer.Option("--out", help="folder of the artifact")]
ForceOption = Annotated[bool, typer.Option("--force", help="replace an earlier artifact")]
SeedOption = Annotated[int, typer.Option("--seed", help="seed of everything random")]
ResumeOption = Annotated[
    bool, typer.Option("--resume", help="go on with an interrupted run of the same job")
]
JsonOption = Annotated[bool, typer.Option("--json", help="print the record as JSON on stdout")]
GroupsOption = Annotated[
    bool, typer.Option("--groups", help="list channel groups: size, members, why some are whole")
]
RuntimesOption = Annotated[
    bool, typer.Option("--runtimes", help="time it as it is, lowered and compiled, side by side")
]
DryOption = Annotated[bool, typer.Option("--dry-run", help="measure and plan; write nothing")]
DebugOption = Annotated[bool, typer.Option("--debug", help="show tracebacks")]
TrustOption = Annotated[
    bool, typer.Option("--trust-pickle", help="run the code a pickled checkpoint carries")
]
TrustCodeOption = Annotated[
    bool,
    typer.Option("--trust-code", help="run code that a recipe names although others may write it"),
]
IgnoreOption = Annotated[
    list[str] | None,
    typer.Option("--ignore", metavar="REGEX", help="leave out tensors of such names; repeatable"),
]
ImportOption = Annotated[
    list[str] | None,
    typer.Option(
        "--import", metavar="MODULE", help="import it first: it registers operators; repeatable"
    ),
]
WithoutDataOption = Annotated[
    bool, typer.Option("--without-data", help="allow lossy steps although accuracy is unknown")
]
