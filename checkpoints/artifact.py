"""The artifact folder: what is in it, where it may be, and reading it with its hashes checked.

Safetensors and manifest are the durable truth, `model.pt2` is derived. Nothing needs pickle.
"""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.fx import GraphModule

from ..core.errors import (
    ArtifactError,
    CheckpointError,
    UnsafePickle,
    UsageError,
    first_line,
    text_line,
)
from ..core.files import (
    CONVERTED,
    MAX_PACKAGE_BYTES,
    PACKAGE,
    read_text,
    sha256,
)
from ..core.json_values import JsonObject
from ..core.naming import outside
from ..core.workspace import recover, workspace
from ..graph.capture import module_of, moved
from ..profiling.closeness import tolerance_of
from .blueprint import Blueprint, Program, Text
from .detect import detect
from .graph_reader import read_graph
from .manifest import MANIFEST, read_manifest
from .programs import load_program
from .samples import draw_inputs, reproduces, reproduces_calls, sample_calls, sample_of
from .shards import load_safetensors
from .size_samples import SIZES, reproduces_sizes

WEIGHTS, PROGRAM, GRAPH = "model.safetensors", "model.pt2", "model.graph.json"
RECIPE = "recipe.yaml"
OURS = {MANIFEST, WEIGHTS, PROGRAM, GRAPH, PACKAGE, RECIPE, "report.json", "report.md",
        "report.html", *CONVERTED}  # fmt: skip
SAMPLE_SEED = 7


@dataclass(frozen=True)
class LoadedArtifact:
    """A checked artifact. `text`: its graph, from which it loads without torch's serializer;
    None where it has that in `model.pt2` alone."""

    folder: Path
    manifest: JsonObject
    weights: Mapping[str, Tensor]
    text: str | None

    @cached_property
    def program(self) -> ExportedProgram:
        """It holds the safetensors' weights. Raises ArtifactError, UnsafePickle."""
        program = _read_program(self.folder / PROGRAM)
        _put_weights(self.folder, program, self.weights)
        return program

    def module(self, device: str = "cpu") -> GraphModule:
        """A graph of its own, with the weights on `device`. Raises as `program` does."""
        if self.text is None:
            return module_of(moved(self.program, device))
        try:
            module = read_graph(self.text, self.weights, device)
        except ValueError as error:
            raise _unreadable(self.folder / GRAPH, error) from error
        return module if device == "cpu" else module.to(device)

    def blueprint(self, device: str = "cpu") -> Blueprint:
        return Program(self.program) if self.text is None else Text(self.text, device)


def check_writable(
    folder: Path, force: bool, refuse_foreign: Callable[[Path], None] | None = None
) -> None:
    """Before long work: can `folder` be made? Raises UsageError or ArtifactError; makes nothing.

    What dead runs left beside it is removed, and what they had moved away comes back.
    `refuse_foreign` raises where it holds what `force` must not replace; by default, all but an
    artifact.
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
        (refuse_foreign or _refuse_foreign)(folder)
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
    """Open an artifact, whose files must be those that were written.

    `verify` also runs program and graph on the stored sample and hashes the package. Raises
    ArtifactError, or UnsafePickle where `model.pt2` was replaced by one that would run code.
    """
    manifest, weights = read_weights(folder)
    _check_program(folder / PROGRAM, manifest.get("program_sha256"))
    text = _read_text(folder / GRAPH, manifest.get("graph_sha256"))
    artifact = LoadedArtifact(folder, manifest, weights, text)
    if text is None:
        _ = artifact.program  # what is wrong with it is said here
    if verify:
        _check_sample(artifact)
        read_package(folder, manifest)
        read_converted(folder, manifest)
    return artifact


def read_package(folder: Path, manifest: JsonObject) -> bytes | None:
    """`model.aoti.pt2`, native code that nothing here runs; None where there is none, or no more.

    Raises ArtifactError where it is not the one that was written.
    """
    path, digest = folder / PACKAGE, manifest.get("package_sha256")
    return None if digest is None or not path.is_file() else _whole(path, str(digest))


def read_converted(folder: Path, manifest: JsonObject) -> dict[str, bytes]:
    """Files of another library's by name, nothing of them looked at; empty where there are none.

    Raises ArtifactError where one is missing or not the one that was written.
    """
    digests = manifest.get("converted_sha256") or {}
    return {name: _whole(folder / name, digest) for name, digest in digests.items()}


def _whole(path: Path, digest: str) -> bytes:
    if not path.is_file():
        raise _changed(path)
    if path.stat().st_size > MAX_PACKAGE_BYTES:
        raise ArtifactError(f"`{path}` is larger than {MAX_PACKAGE_BYTES >> 30} GB; it is refused.")
    content = path.read_bytes()
    if hashlib.sha256(content).hexdigest() != digest:
        raise _changed(path)
    return content


def _check_program(path: Path, digest: object) -> None:
    try:
        if detect(path) != "pt2" or (digest is not None and sha256(path) != digest):
            raise _changed(path)
    except CheckpointError as error:
        raise _unreadable(path, error) from error


def _read_program(path: Path) -> ExportedProgram:
    try:
        return load_program(path)
    except (UnsafePickle, ArtifactError):
        raise
    except Exception as error:
        raise _unreadable(path, error) from error


def _read_text(path: Path, digest: object) -> str | None:
    """None in artifacts of before, and where a graph has no such form."""
    if digest is None:
        return None
    try:
        text = read_text(path)
    except (OSError, UnicodeDecodeError) as error:
        raise _changed(path) from error
    if hashlib.sha256(text.encode()).hexdigest() != digest:
        raise _changed(path)
    return text


def _changed(path: Path) -> ArtifactError:
    return ArtifactError(f"`{path}` is not the one that was written, or was changed since.")


def _unreadable(path: Path, error: Exception) -> ArtifactError:
    return ArtifactError(
        f"`{path}` can't be read by torch {torch.__version__}: {first_line(error)} "
        "Load the weights onto your own class with `load(folder, model=...)`."
    )


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


def _check_sample(artifact: LoadedArtifact) -> None:
    folder, program, manifest = artifact.folder, artifact.program, artifact.manifest
    tolerance = tolerance_of((*program.state_dict.values(), *program.constants.values()))
    inputs = draw_inputs(manifest["inputs"], SAMPLE_SEED)
    try:
        calls = sample(program, manifest["inputs"])
        modules = [] if artifact.text is None else [artifact.module()]
        graph = all(reproduces_calls(m, manifest["sample"], inputs, tolerance) for m in modules)
        if manifest["sample"].get(SIZES):
            modules.append(module_of(program))
            graph = graph and all(reproduces_sizes(m, manifest, tolerance) for m in modules)
    except ArtifactError:
        raise
    except Exception as error:  # of whatever its operators are given
        raise ArtifactError(
            f"`{folder}`: its program does not run on its own inputs: {first_line(error)}"
        ) from error
    pairs = zip(calls, sample_calls(manifest["sample"]), strict=False)
    alike = (reproduces(torch.tensor(outputs), wanted, tolerance) for outputs, wanted in pairs)
    if not graph or not all(alike):
        raise ArtifactError(
            f"`{folder}` does not reproduce its stored sample; the program or the weights were "
            "changed, or this torch computes something else."
        )
