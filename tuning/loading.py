"""`modelspeed.load`: a written artifact as a ready module for this machine."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..checkpoints.artifact import PROGRAM, read_artifact, read_weights
from ..checkpoints.damage import first_line
from ..checkpoints.samples import draw_inputs, reproduces, sample_of
from ..core.calling import plain
from ..core.errors import ArtifactError, CaptureError, EditError, MachineWarning, UsageError
from ..core.records import Machine
from ..core.records import from_json as record_from_json
from ..graph.capture import module_of
from ..graph.edits import from_json
from ..graph.replay import replayed
from ..profiling.machine import fingerprint
from ..profiling.notices import no_compiler, other_machine
from .compiling import INDUCTOR, why_not
from .runtimes import named, realise


def load(
    folder: str | os.PathLike[str],
    *,
    model: nn.Module | None = None,
    runtime: str | None = None,
) -> nn.Module:
    """The variant in `folder` as an eval-mode module for this machine.

    `runtime`: `plain`, `lowered` or another overrides the recorded one. `model`: your own class
    as it was before tuning.
    A copy of it comes back with the recorded edits carried out on its modules; it is checked
    against the stored sample and runs as PyTorch runs it, without this machine's fast kernels.
    Warns (`MachineWarning`) where CPU, threads or torch are not those that a graph was tuned for.
    Raises ArtifactError where files are missing or changed, or where the class can't follow.
    """
    if model is not None:
        if runtime not in (None, "plain"):
            raise UsageError(f"`runtime={runtime!r}` is for graphs; a class of yours runs `plain`.")
        return _onto(model, Path(folder))
    artifact = read_artifact(Path(folder))
    inputs = draw_inputs([dict(spec) for spec in artifact.manifest["inputs"]], 0)
    module = module_of(artifact.program)
    chosen = named(runtime, str(artifact.manifest["runtime"]), module, inputs)
    _warn(artifact.manifest, chosen, str(inputs[0].device))
    return realise(module, inputs, chosen)


def _warn(manifest: dict[str, Any], runtime: str, device: str) -> None:
    """What of the closed list of warnings holds for this machine, as Python warnings."""
    record = manifest.get("record")
    try:
        tuned = record_from_json(Machine, record["machine"], "machine")  # type: ignore[index]
    except (ArtifactError, TypeError, KeyError):
        return  # a damaged record says nothing, and the variant runs without it
    there = tuned.device.partition(" ")[0]
    here = fingerprint(there if torch.cuda.is_available() else "cpu")
    found = [other_machine(tuned, here)]
    if runtime == INDUCTOR and (reason := why_not(device)):
        found.append(no_compiler(reason))
    for notice in found:
        if notice is not None:
            text = f"{notice.seen} {notice.cause} {notice.remedy}"
            warnings.warn(text, MachineWarning, stacklevel=3)


def _onto(model: nn.Module, folder: Path) -> nn.Module:
    manifest, held = read_weights(folder)
    specs = [dict(spec) for spec in manifest["inputs"]]
    inputs = draw_inputs(specs, int(manifest["sample"]["seed"]))
    try:
        edits = from_json(manifest["edits"])
        return replayed(
            model, inputs, edits, held, lambda made: _reproduces(made, manifest["sample"], inputs)
        )
    except (EditError, CaptureError) as error:
        raise ArtifactError(
            f"`{folder}` does not fit `{type(model).__name__}`: {str(error).rstrip('.')}. "
            f"`modelspeed.load({str(folder)!r})` and `{folder / PROGRAM}` need no class."
        ) from error
    except (TypeError, ValueError, IndexError, AttributeError, RuntimeError) as error:
        raise ArtifactError(f"`{folder}`: its edits are damaged: {first_line(error)}") from error


def _reproduces(model: nn.Module, sample: dict[str, Any], inputs: Any) -> bool:
    with torch.no_grad():
        found = sample_of(plain(inputs.call(model)))
    return reproduces(found, torch.tensor(sample["outputs"]))
