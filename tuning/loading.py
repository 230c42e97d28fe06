"""`modelspeed.load`: a written artifact as a ready module for this machine."""

from __future__ import annotations

import os
from pathlib import Path

import torch
from torch import nn
from torch.fx import GraphModule

from ..checkpoints.artifact import LoadedArtifact, read_artifact
from ..checkpoints.samples import draw_inputs, sample_of
from ..core.errors import ArtifactError, EditError
from ..graph.capture import capture, module_of
from ..graph.edits import apply, from_json
from .runtimes import realise

TOLERANCE = 1e-3


def load(
    folder: str | os.PathLike[str],
    *,
    model: nn.Module | None = None,
    runtime: str | None = None,
) -> nn.Module:
    """The variant in `folder` as an eval-mode module for this machine.

    `model`: your own class with its original widths; the recorded edits are replayed on its graph
    and the output is checked against the stored sample. `runtime`: `plain` overrides the recorded
    one. Raises ArtifactError where files are missing, changed or do not fit.
    """
    artifact = read_artifact(Path(folder))
    specs = [dict(spec) for spec in artifact.manifest["inputs"]]
    inputs = draw_inputs(specs, 0)
    if model is None:
        module = module_of(artifact.program)
    else:
        module = capture(model, inputs)
        _replay(module, artifact)
        _fill(module, artifact)
        _check_sample(module, artifact, specs)
    chosen = runtime or str(artifact.manifest["runtime"])
    return realise(module, inputs, chosen)


def _replay(module: GraphModule, artifact: LoadedArtifact) -> None:
    try:
        apply(module, from_json(artifact.manifest["edits"]))
    except EditError as error:
        raise ArtifactError(f"the recorded edits do not fit `model`: {error}") from error


def _fill(module: nn.Module, artifact: LoadedArtifact) -> None:
    weights = dict(artifact.program.state_dict)
    try:
        module.load_state_dict(weights, strict=False)
    except RuntimeError as error:
        first = str(error).splitlines()[-1].strip()
        raise ArtifactError(f"the artifact's weights do not fit `model`: {first}") from error


def _check_sample(
    module: nn.Module, artifact: LoadedArtifact, specs: list[dict[str, object]]
) -> None:
    sample = artifact.manifest["sample"]
    inputs = draw_inputs(specs, int(sample["seed"]))
    with torch.no_grad():
        outputs = inputs.call(module)
    wanted = torch.tensor(sample["outputs"])
    found = sample_of(outputs)
    if found.shape != wanted.shape:
        raise ArtifactError(
            f"`model` gives {len(found)} values on the stored sample, the artifact {len(wanted)}; "
            "is it the class this artifact was made from?"
        )
    if not torch.allclose(found, wanted, rtol=TOLERANCE, atol=TOLERANCE):
        gap = float((found - wanted).abs().max())
        raise ArtifactError(
            f"`model` does not reproduce the stored sample (largest difference {gap:.3g}); "
            "is it the class this artifact was made from?"
        )
