"""An artifact in another form, written whole or not at all."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor
from torch.export import ExportedProgram

from ..backends.aoti import write_package
from ..backends.compiler import lacks_compiler
from ..backends.onnx_model import check_file, checked_batches, onnx_program
from ..checkpoints.archives import archive
from ..checkpoints.artifact import (  # fmt: skip
    PROGRAM,
    LoadedArtifact,
    read_artifact,
    read_weights,
    unwritable,
)
from ..checkpoints.samples import draw_inputs, other_sizes
from ..checkpoints.staging import write_program
from ..core.errors import ArtifactError, MissingExtra, UsageError, first_line
from ..core.model_io import Inputs
from ..core.workspace import recover, workspace
from ..graph.capture import module_of
from . import source_folder

Note = Callable[[str], object]
SUFFIXES = {
    "pt2": ".pt2", "state-dict": ".pt", "onnx": ".onnx", "python": "-python", "aoti": ".aoti.pt2",
}  # fmt: skip


def export(
    folder: Path,
    form: str,
    out: Path | None = None,
    force: bool = False,
    note: Note = lambda text: None,
) -> Path:
    """Write the artifact's model to `out` (`FOLDER.SUFFIX` without one) and return where.

    `pt2` is the exported program with the safetensors' weights, `state-dict` a file of
    `torch.save` that needs no more than `weights_only`, `python` a folder with `model.py` and its
    weights, `aoti` a package of code compiled for this machine's CPU, `onnx` a file for any batch
    whose int8 layers are QuantizeLinear and DequantizeLinear, run in ONNX Runtime and compared
    before it is put in place; `note` is told where it couldn't be. Raises UsageError,
    ArtifactError, and MissingExtra where `onnx` is asked for and not installed.
    """
    if form not in SUFFIXES:
        raise UsageError(f"`--format` is `{form}`; it must be one of {', '.join(SUFFIXES)}.")
    target = out or folder.absolute().with_name(folder.absolute().name + SUFFIXES[form])
    recover(target)
    if form == "python":
        source_folder.check(target, force)
    elif target.is_dir() or (target.exists() and not force):
        raise UsageError(f"`{target}` already exists; pass `--force` or another `--out`.")
    if form == "state-dict":
        _, weights = read_weights(folder)
        _whole(target, partial(_weights, weights))
        return target
    if form == "aoti" and (reason := lacks_compiler("cpu")):
        raise UsageError(f"`--format aoti` {reason}; install it, or use `--format pt2`.")
    artifact = read_artifact(folder)
    if form == "python":
        source_folder.write(artifact, target, force)
    elif form in _WRITERS:
        _WRITERS[form](artifact, target, note)
    else:
        _whole(target, lambda path: write_program(path, artifact.program))
    return target


def _weights(weights: dict[str, Tensor], path: Path) -> None:
    with archive(path) as file:
        torch.save(weights, file)


def _whole(target: Path, write: Callable[[Path], object]) -> None:
    try:
        with workspace(target) as space:
            write(space.new)
            # ONNX puts weights above 1.5 GB into a second file, which it names in the first.
            beside = [p for p in space.new.parent.iterdir() if p != space.new]
            if not target.exists() and (there := [p.name for p in beside if _is_taken(p, target)]):
                raise FileExistsError(17, f"`{there[0]}` is in the way")
            space.put(replace=True)
    except (OSError, RuntimeError) as error:
        raise unwritable(target, error) from error


def _is_taken(path: Path, target: Path) -> bool:
    return (target.parent / path.name).exists()


def _onnx(artifact: LoadedArtifact, target: Path, note: Note) -> None:
    module = module_of(artifact.program)
    specs = artifact.manifest["inputs"]
    batches = checked_batches(module, lambda seed: draw_inputs(specs, seed))
    others = [draw_inputs(row, 0) for row in other_sizes(specs)]

    def write_checked(path: Path, shown: Inputs, checked: Sequence[Inputs]) -> None:
        onnx_program(module, shown).save(str(path))
        try:
            check_file(path, module, checked)
        except (MissingExtra, NotImplementedError) as error:
            note(f"the file was not run to check it: {first_line(error)}")

    def write(path: Path) -> None:
        if others:
            try:
                return write_checked(path, batches[0], [*batches, *others])
            except Exception as error:
                note(f"the file takes one size alone: {first_line(error)}")
        write_checked(path, replace(batches[0], varies=()), batches)

    try:
        _whole(target, write)
    except (ArtifactError, MissingExtra):
        raise
    except Exception as error:  # what the exporter has no translation for
        raise ArtifactError(
            f"`{artifact.folder / PROGRAM}` can't be written as ONNX: {first_line(error)}"
        ) from error


def _aoti(artifact: LoadedArtifact, target: Path, note: Note) -> None:
    if not target.name.endswith(".pt2"):
        raise UsageError(f"`--out` is `{target}`; a package of AOTInductor must end in `.pt2`.")
    try:
        _whole(target, lambda path: _compiled(artifact.program, path))
    except ArtifactError:
        raise
    except Exception as error:  # what the compiler does not take
        raise ArtifactError(
            f"`{artifact.folder / PROGRAM}` can't be compiled: {first_line(error)}"
        ) from error


def _compiled(program: ExportedProgram, path: Path) -> None:
    # Elsewhere first: where the disk of `path` is full, torch's writer would end this process.
    with tempfile.TemporaryDirectory(prefix="modelspeed-") as folder:
        write_package(program, package := Path(folder) / path.name)
        shutil.copyfile(package, path)


_WRITERS: dict[str, Callable[[LoadedArtifact, Path, Note], None]] = {"onnx": _onnx, "aoti": _aoti}
