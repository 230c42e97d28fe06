"""The artifact folder: what is in it, where it may be, and reading it with its hashes checked.

Safetensors and manifest are the durable truth, `model.pt2` is derived. Nothing needs pickle.
"""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram

from ..core.errors import ArtifactError, UnsafePickle, UsageError, first_line, text_line
from ..core.files import MAX_PACKAGE_BYTES, PACKAGE
from ..core.json_values import JsonObject
from ..core.naming import outside
from ..core.workspace import recover, workspace
from ..profiling.closeness import tolerance_of
from .contents import sha256
from .detect import detect
from .manifest import MANIFEST, read_manifest
from .programs import load_program
from .samples import draw_inputs, reproduces, sample_calls, sample_of
from .shards import load_safetensors

WEIGHTS, PROGRAM, RECIPE = "model.safetensors", "model.pt2", "recipe.yaml"
OURS = {MANIFEST, WEIGHTS, PROGRAM, PACKAGE, RECIPE, "report.json", "report.md", "report.html"}
SAMPLE_SEED = 7


@dataclass(frozen=True)
class LoadedArtifact:
    """A checked artifact; the program holds the safetensors' weights."""

    folder: Path
    program: ExportedProgram
    manifest: JsonObject


def check_writable(folder: Path, force: bool) -> None:
    """Before long work: can `folder` be made? Raises UsageError or ArtifactError; makes nothing.

    What dead runs left beside it is removed, and what they had moved away comes back.
    """
    folder = absolute(folder)
    recover(folder)
    if folder.is_symlink():
        raise UsageError(f"`{folder}` is a link; name the folder itself or another `--out`.")
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"`{folder}` is a file, not a folder; choose another `--out`.")
    if folder.is_dir() and any(folder.iterdir()):
        if not force:
            raise UsageError(f"`{folder}` already exists; pass `--force` or another `--out`.")
        _refuse_foreign(folder)
    above = next(p for p in folder.parents if p.exists())
    if not above.is_dir():
        raise ArtifactError(f"`{folder}` can't be written: `{above}` is a file, not a folder.")
    try:
        with workspace(above / folder.name):
            pass
    except OSError as error:
        raise unwritable(folder, error) from error


def absolute(folder: Path) -> Path:
    # `.` and `..` have no usable name for the temporary sibling.
    return Path(os.path.abspath(folder))


def unwritable(folder: Path, error: Exception) -> ArtifactError:
    """The sentence for what a disk or a writer said."""
    text = getattr(error, "strerror", None) or text_line(error)
    full = getattr(error, "errno", None) == errno.ENOSPC or "No space left" in str(error)
    why = "the disk is full" if full else text.rstrip(".")
    return ArtifactError(f"`{folder}` can't be written: {why}.")


def _refuse_foreign(folder: Path) -> None:
    """Force replaces only what modelspeed wrote, so a slip can't cost a user's files."""
    try:
        read_manifest(folder, any_version=True)
    except ArtifactError as error:
        raise UsageError(
            f"`{folder}` is not an artifact of modelspeed, so `--force` does not replace it."
        ) from error
    foreign = sorted(p.name for p in folder.iterdir() if p.name not in OURS or p.is_dir())
    if foreign:
        raise UsageError(
            f"`{folder}` also holds `{foreign[0]}`, which modelspeed did not write, so `--force` "
            "does not replace it; move it away or choose another `--out`."
        )


def sample(program: ExportedProgram, specs: list[JsonObject]) -> list[list[float]]:
    """Of two calls in a row: the second one sees what the first left in the model's state."""
    drawn, module = draw_inputs(specs, SAMPLE_SEED), program.module(check_guards=False)
    state = [t for t in (*program.state_dict.values(), *program.constants.values())
            if isinstance(t, Tensor) and not isinstance(t, nn.Parameter)]  # fmt: skip
    before = [t.clone() for t in state]
    with torch.no_grad():
        calls = [sample_of(drawn.map(torch.clone).call(module)) for _ in range(2)]
        for tensor, value in zip(state, before, strict=True):
            tensor.copy_(value)
    return [[float(value) for value in call] for call in calls]


def read_weights(folder: Path) -> tuple[JsonObject, dict[str, Tensor]]:
    """Manifest and tensors, for which this torch need not be able to read `model.pt2`.

    Raises ArtifactError where they are missing, damaged or not of one artifact.
    """
    manifest = read_manifest(folder)
    weights = folder / WEIGHTS
    if not weights.is_file() or sha256(weights) != manifest.get("weights_sha256"):
        raise ArtifactError(f"`{weights}` is missing or was changed after it was written.")
    return manifest, load_safetensors(weights)


def read_artifact(folder: Path, *, verify: bool = False) -> LoadedArtifact:
    """Open an artifact; weights come from the safetensors, whose hash must match the manifest.

    `verify` also runs the program on the stored sample and hashes the package. Raises
    ArtifactError, or UnsafePickle where `model.pt2` was replaced by one that would run code.
    """
    manifest, weights = read_weights(folder)
    program = _read_program(folder / PROGRAM, manifest.get("program_sha256"))
    _put_weights(folder, program, weights)
    if verify:
        _check_sample(folder, program, manifest)
        read_package(folder, manifest)
    return LoadedArtifact(folder, program, manifest)


def read_package(folder: Path, manifest: JsonObject) -> bytes | None:
    """`model.aoti.pt2`, native code that nothing here runs; None where there is none, or no more.

    Raises ArtifactError where it is not the one that was written.
    """
    path, digest = folder / PACKAGE, manifest.get("package_sha256")
    if digest is None or not path.is_file():
        return None
    if path.stat().st_size > MAX_PACKAGE_BYTES:
        raise ArtifactError(f"`{path}` is larger than {MAX_PACKAGE_BYTES >> 30} GB; it is refused.")
    package = path.read_bytes()
    if hashlib.sha256(package).hexdigest() != digest:
        raise ArtifactError(f"`{path}` was changed after it was written.")
    return package


def _read_program(path: Path, digest: object) -> ExportedProgram:
    try:
        if detect(path) != "pt2" or (digest is not None and sha256(path) != digest):
            raise ArtifactError(f"`{path}` is not the one that was written, or was changed since.")
        return load_program(path)
    except (UnsafePickle, ArtifactError):
        raise
    except Exception as error:
        raise ArtifactError(
            f"`{path}` can't be read by torch {torch.__version__}: {first_line(error)} "
            "Load the weights onto your own class with `load(folder, model=...)`."
        ) from error


def _put_weights(folder: Path, program: ExportedProgram, weights: Mapping[str, Tensor]) -> None:
    kept = {**program.state_dict, **program.constants}
    for name, tensor in kept.items():
        if not isinstance(tensor, Tensor):
            continue
        weight = weights.get(outside(name))
        if weight is None or weight.shape != tensor.shape:
            raise ArtifactError(
                f"`{folder}`: `{outside(name)}` of `{PROGRAM}` is not in `{WEIGHTS}` with the same "
                "shape; the two files are not of one artifact."
            )
        with torch.no_grad():
            tensor.copy_(weight)


def _check_sample(folder: Path, program: ExportedProgram, manifest: JsonObject) -> None:
    try:
        calls = sample(program, manifest["inputs"])
    except Exception as error:  # of whatever its operators are given
        raise ArtifactError(
            f"`{folder}`: its program does not run on its own inputs: {first_line(error)}"
        ) from error
    tolerance = tolerance_of((*program.state_dict.values(), *program.constants.values()))
    pairs = zip(calls, sample_calls(manifest["sample"]), strict=False)
    if not all(reproduces(torch.tensor(outputs), wanted, tolerance) for outputs, wanted in pairs):
        raise ArtifactError(
            f"`{folder}` does not reproduce its stored sample; the program or the weights were "
            "changed, or this torch computes something else."
        )
