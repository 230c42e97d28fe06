"""`modelspeed.load`: a written artifact as a ready module for this machine."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.fx import GraphModule

from ..checkpoints.artifact import (
    PROGRAM,
    LoadedArtifact,
    read_artifact,
    read_package,
    read_weights,
)
from ..checkpoints.damage import first_line
from ..checkpoints.samples import (
    COARSE,
    TOLERANCE,
    draw_inputs,
    reproduces,
    sample_of,
    tolerance_of,
)
from ..core.calling import Inputs, plain
from ..core.errors import (
    ArtifactError,
    CaptureError,
    EditError,
    MachineWarning,
    MeasureError,
    UsageError,
)
from ..core.records import Machine, Notice
from ..core.records import from_json as record_from_json
from ..graph.capture import module_of, moved
from ..graph.edits import Edit, from_json
from ..graph.replay import replayed
from ..profiling.machine import fingerprint
from ..profiling.notices import (
    broken_package,
    no_compiler,
    other_machine,
    runtime_fails,
    untrusted_package,
)
from .compiling import INDUCTOR, why_not
from .job import check_device
from .packages import is_remembered
from .runtimes import PLAIN, named, packed, realise


def load(
    folder: str | os.PathLike[str],
    *,
    model: nn.Module | None = None,
    runtime: str | None = None,
    device: str | None = None,
    trust_compiled: bool = False,
) -> nn.Module:
    """The variant in `folder` as an eval-mode module for this machine.

    `runtime`: `plain`, `lowered` or another overrides the recorded one. `device`: `cpu` or `cuda:N`
    instead of the one it was tuned for, or the CPU where that is missing. `model`: your own class
    as it was before tuning.
    A copy of it comes back with the recorded edits carried out on its modules; it is checked
    against the stored sample and runs as PyTorch runs it, without this machine's fast kernels.
    Compiled code in the artifact runs where your modelspeed made it on this machine, or where
    `trust_compiled` says that you trust whoever did; otherwise the graph is compiled anew.
    Warns (`MachineWarning`) where CPU, threads or torch are not those that a graph was tuned for.
    Raises ArtifactError where files are missing or changed, or where the class can't follow.
    """
    if model is not None:
        if runtime not in (None, "plain"):
            raise UsageError(f"`runtime={runtime!r}` is for graphs; a class of yours runs `plain`.")
        return _onto(model, Path(folder))
    artifact = read_artifact(Path(folder))
    tuned = _machine(artifact.manifest)
    there = device or _device(tuned)
    check_device(there)
    inputs = draw_inputs(artifact.manifest["inputs"], 0).map(lambda x: x.to(there))
    module = module_of(moved(artifact.program, there))
    chosen = named(runtime, str(artifact.manifest["runtime"]), module, inputs)
    made, found = _compiled_before(artifact, tuned, module, inputs, chosen, trust_compiled)
    for notice in found:
        _warn(notice)
    try:
        return realise(module, inputs, chosen) if made is None else made
    except MeasureError as error:
        _warn(runtime_fails(chosen, str(error)))
        return realise(module, inputs, packed(module, inputs) or PLAIN)


def _warn(notice: Notice) -> None:
    text = f"{notice.seen} {notice.cause} {notice.remedy}"
    warnings.warn(text, MachineWarning, stacklevel=3)


def _device(tuned: Machine | None) -> str:
    on_gpu = tuned is not None and tuned.device.startswith("cuda") and torch.cuda.is_available()
    return "cuda" if on_gpu else "cpu"


def _compiled_before(
    artifact: LoadedArtifact,
    tuned: Machine | None,
    module: GraphModule,
    inputs: Inputs,
    runtime: str,
    trusted: bool,
) -> tuple[nn.Module | None, list[Notice]]:
    """The artifact's package ready to be called, where it may run; and what there is to warn of."""
    made, why = None, None
    other = other_machine(tuned, fingerprint(str(inputs[0].device))) if tuned else None
    if runtime == INDUCTOR and tuned is not None and other is None:
        made, why = _packaged(artifact, module, inputs, trusted)
    lacking = why_not(str(inputs[0].device)) if runtime == INDUCTOR and made is None else None
    found = (other, why, no_compiler(lacking) if lacking else None)
    return made, [notice for notice in found if notice is not None]


def _machine(manifest: dict[str, Any]) -> Machine | None:
    record = manifest.get("record")
    try:
        return record_from_json(Machine, record["machine"], "machine")  # type: ignore[index]
    except (ArtifactError, TypeError, KeyError):
        return None  # a damaged record says nothing, and the variant runs without it


def _packaged(
    artifact: LoadedArtifact, module: GraphModule, inputs: Inputs, trusted: bool
) -> tuple[nn.Module | None, Notice | None]:
    manifest, package = artifact.manifest, read_package(artifact.folder, artifact.manifest)
    if package is None:
        return None, None
    if not (trusted or is_remembered(package)):
        return None, untrusted_package()
    drawn = draw_inputs(manifest["inputs"], int(manifest["sample"]["seed"]))
    drawn = drawn.map(lambda x: x.to(inputs[0].device))
    on_gpu = inputs[0].device.type == "cuda"  # its convolutions round to 10 bits (TF32)
    tolerance = COARSE if on_gpu else tolerance_of(artifact.program.state_dict.values())
    try:
        made = realise(module, inputs, INDUCTOR, package)
        if _reproduces(made, manifest["sample"], drawn, tolerance):
            return made, None
        return None, broken_package("it does not reproduce the stored sample")
    except (MeasureError, RuntimeError) as error:
        return None, broken_package(first_line(error))


def _onto(model: nn.Module, folder: Path) -> nn.Module:
    manifest, held = read_weights(folder)
    specs = [dict(spec) for spec in manifest["inputs"]]
    inputs = draw_inputs(specs, int(manifest["sample"]["seed"]))
    edits = _edits(manifest, folder)
    try:
        return replayed(
            model, inputs, edits, held, lambda made: _reproduces(made, manifest["sample"], inputs)
        )
    except Exception as error:  # of the class's own code, or edits of another class
        told = isinstance(error, (EditError, CaptureError))
        why = str(error).rstrip(".") if told else first_line(error).rstrip(".")
        raise ArtifactError(
            f"`{folder}` does not fit `{type(model).__name__}`: {why}. "
            f"`modelspeed.load({str(folder)!r})` and `{folder / PROGRAM}` need no class."
        ) from error


def _edits(manifest: dict[str, Any], folder: Path) -> list[Edit]:
    try:
        return from_json(manifest["edits"])
    except (EditError, TypeError, ValueError, KeyError, IndexError, AttributeError) as error:
        raise ArtifactError(f"`{folder}`: its edits are damaged: {first_line(error)}") from error


def _reproduces(
    model: nn.Module, sample: dict[str, Any], inputs: Inputs, tolerance: float = TOLERANCE
) -> bool:
    with torch.no_grad():
        found = sample_of(plain(inputs.call(model)))
    return reproduces(found, torch.tensor(sample["outputs"]), tolerance)
