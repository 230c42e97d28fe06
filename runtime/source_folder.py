"""`model.py` and its weights: the tuned model as plain PyTorch, checked before it is in place."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import nn
from torch.fx import GraphModule

from ..checkpoints.artifact import SAMPLE_SEED, LoadedArtifact, unwritable
from ..checkpoints.samples import draw_inputs
from ..core.errors import ArtifactError, EditError, UsageError, first_line
from ..core.model_io import Inputs, leaves
from ..core.workspace import workspace
from ..graph.capture import has_dynamic_batch
from ..graph.source.text import SourceText, source_of

CODE, WEIGHTS = "model.py", "model.safetensors"
TITLE = "A model tuned by modelspeed."
TOLERANCE = 1e-4


def check(target: Path, force: bool) -> None:
    """Before work: may `target` be written? Raises UsageError; only exports are replaced."""
    if target.is_symlink() or (target.exists() and not target.is_dir()):
        raise UsageError(f"`{target}` is not a folder; choose another `--out`.")
    if not target.exists():
        return
    foreign = sorted(p.name for p in target.iterdir() if p.name not in (CODE, WEIGHTS))
    if foreign:
        raise UsageError(
            f"`{target}` holds `{foreign[0]}`, which is not part of an export, so it is not "
            "replaced; choose another `--out`."
        )
    if not force:
        raise UsageError(f"`{target}` already exists; pass `--force` or another `--out`.")


def write(artifact: LoadedArtifact, target: Path, force: bool) -> None:
    """The folder `target`, after its model gave what the artifact's program gives.

    Raises ArtifactError where the graph can't be written as source or the disk refuses.
    """
    module = artifact.program.module(check_guards=False)
    try:
        source = source_of(module, TITLE, WEIGHTS)
        with workspace(target) as space:
            space.new.mkdir()
            _put(source, space.new)
            _same(space.new / CODE, module, artifact)
            space.put(replace=force)
    except EditError as error:
        raise ArtifactError(
            f"`{artifact.folder}` can't be written as `{CODE}`: {str(error).rstrip('.')}; "
            "use `--format pt2`."
        ) from error
    except (OSError, SafetensorError) as error:
        raise unwritable(target, error) from error


def _put(source: SourceText, folder: Path) -> None:
    # A clone each: safetensors refuses tensors that share memory.
    tensors = {k: v.detach().cpu().contiguous().clone() for k, v in source.tensors.items()}
    save_file(tensors, folder / WEIGHTS)
    (folder / CODE).write_text(source.text, encoding="utf-8")


def _same(code: Path, module: GraphModule, artifact: LoadedArtifact) -> None:
    """Raises EditError where the written file runs differently from the program."""
    specs = [dict(spec) for spec in artifact.manifest["inputs"]]
    shown = [draw_inputs(specs, SAMPLE_SEED)]
    if has_dynamic_batch(module, shown[0]):
        shown.append(shown[0].rows(lambda x, axis: torch.cat([x, x, x], axis)))
    try:
        model = _run(code)
        alike = all(_alike(model, module, inputs) for inputs in shown)
    except Exception as error:  # of whatever an operator was written as
        raise EditError(f"the source does not run ({first_line(error).rstrip('.')})") from error
    if not alike:
        raise EditError("the source gives other outputs than the program")


def _run(code: Path) -> nn.Module:
    scope: dict[str, Any] = {"__file__": str(code), "__name__": "model"}
    exec(compile(code.read_text(encoding="utf-8"), str(code), "exec"), scope)
    model = scope["load"]()
    assert isinstance(model, nn.Module)
    return model


def _alike(model: nn.Module, module: nn.Module, inputs: Inputs) -> bool:
    with torch.no_grad():
        outputs, wanted = leaves(inputs.call(model)), leaves(inputs.call(module))
    return len(outputs) == len(wanted) and all(
        a.shape == b.shape
        and a.dtype == b.dtype
        and torch.allclose(a, b, rtol=TOLERANCE, atol=TOLERANCE, equal_nan=True)
        for a, b in zip(outputs, wanted, strict=True)
    )
