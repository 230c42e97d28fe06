"""The edits of an artifact, carried out on a class of the user's own."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from ..checkpoints.artifact import PROGRAM, read_weights
from ..checkpoints.samples import draw_inputs, reproduces_calls
from ..checkpoints.size_samples import reproduces_sizes
from ..core.errors import ArtifactError, CaptureError, EditError, first_line
from ..core.json_values import JsonObject
from ..graph.edits.apply import Edit, edits_from_json
from ..graph.edits.replay import replayed


def onto(model: nn.Module, folder: Path) -> nn.Module:
    """A copy of `model` with the artifact's edits and weights. Raises ArtifactError where it does
    not follow them, or does not give the stored sample."""
    manifest, weights = read_weights(folder)
    specs = [dict(spec) for spec in manifest["inputs"]]
    inputs = draw_inputs(specs, int(manifest["sample"]["seed"]))
    edits = _edits(manifest, folder)
    try:
        return replayed(
            model,
            inputs,
            edits,
            weights,
            lambda own: (
                reproduces_calls(own, manifest["sample"], inputs)
                and reproduces_sizes(own, manifest)
            ),
        )
    except Exception as error:  # of the class's own code, or edits of another class
        told = isinstance(error, (EditError, CaptureError))
        why = str(error).rstrip(".") if told else first_line(error).rstrip(".")
        raise ArtifactError(
            f"`{folder}` does not fit `{type(model).__name__}`: {why}. "
            f"`modelspeed.load({str(folder)!r})` and `{folder / PROGRAM}` need no class."
        ) from error


def _edits(manifest: JsonObject, folder: Path) -> list[Edit]:
    try:
        return edits_from_json(manifest["edits"])
    except (EditError, TypeError, ValueError, KeyError, IndexError, AttributeError) as error:
        raise ArtifactError(f"`{folder}`: its edits are damaged: {first_line(error)}") from error
