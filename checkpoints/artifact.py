"""The artifact folder: written complete or not at all, read with its hashes checked.

Safetensors and manifest are the durable truth, `model.pt2` is derived. Nothing needs pickle.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.export import ExportedProgram

from ..core.errors import ArtifactError, UsageError
from ..core.records import FORMAT_VERSION, Record, to_json
from .read import sha256
from .samples import draw_inputs

MANIFEST, WEIGHTS, PROGRAM, RECIPE = (
    "modelspeed.json", "model.safetensors", "model.pt2", "recipe.yaml",
)  # fmt: skip
SAMPLE_SEED, SAMPLE_VALUES = 7, 256


@dataclass(frozen=True)
class LoadedArtifact:
    """A checked artifact; the program holds the safetensors' weights."""

    folder: Path
    program: ExportedProgram
    manifest: dict[str, Any]


def check_writable(folder: Path, force: bool) -> None:
    """Before long work: can `folder` be made? Raises UsageError or ArtifactError."""
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        raise UsageError(f"`{folder}` is a file, not a folder; choose another `--out`.")
    if folder.is_dir() and any(folder.iterdir()):
        if not force:
            raise UsageError(f"`{folder}` already exists; pass `--force` or another `--out`.")
        if not (folder / MANIFEST).is_file():
            raise UsageError(
                f"`{folder}` is no artifact of modelspeed, so `--force` does not replace it."
            )
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        probe = folder.parent / f".{folder.name}.probe-modelspeed-{os.getpid()}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise ArtifactError(f"`{folder}` can't be written: {error.strerror}.") from error


def save(
    folder: Path,
    *,
    program: ExportedProgram,
    edits: list[dict[str, Any]],
    record: Record,
    recipe_yaml: str,
    inputs: tuple[Tensor, ...],
    runtime: str,
    reports: Mapping[str, str],
    force: bool,
) -> Path:
    """Write everything to a temporary sibling and rename it to `folder`.

    Raises ArtifactError where the disk refuses; an artifact that was there stays as it was.
    """
    check_writable(folder, force)
    partial = folder.parent / f".{folder.name}.tmp-modelspeed-{os.getpid()}"
    old = folder.parent / f".{folder.name}.old-modelspeed-{os.getpid()}"
    shutil.rmtree(partial, ignore_errors=True)
    try:
        partial.mkdir()
        weights = _write_weights(partial / WEIGHTS, program)
        torch.export.save(program, partial / PROGRAM)
        manifest = _manifest(program, edits, record, inputs, runtime, weights)
        texts = {MANIFEST: json.dumps(manifest, indent=1), RECIPE: recipe_yaml, **reports}
        for name, text in texts.items():
            (partial / name).write_text(text, encoding="utf-8")
        _swap(partial, folder, old)
    except OSError as error:
        raise ArtifactError(f"`{folder}` can't be written: {error.strerror or error}.") from error
    except RuntimeError as error:  # torch's archive writer wraps a full disk in a RuntimeError
        raise ArtifactError(f"`{folder}` can't be written: {str(error).splitlines()[0]}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return folder


def _swap(partial: Path, folder: Path, old: Path) -> None:
    if folder.exists():
        folder.rename(old)
    try:
        partial.rename(folder)
    except BaseException:
        if old.exists():
            old.rename(folder)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _write_weights(path: Path, program: ExportedProgram) -> str:
    held: dict[str, Tensor] = {}
    for name, tensor in {**program.state_dict, **program.constants}.items():
        if isinstance(tensor, Tensor):
            # A clone each: safetensors refuses tensors that share memory.
            held[name] = tensor.detach().cpu().contiguous().clone()
    save_file(held, path)
    return sha256(path)


def _manifest(
    program: ExportedProgram,
    edits: list[dict[str, Any]],
    record: Record,
    inputs: tuple[Tensor, ...],
    runtime: str,
    weights_sha256: str,
) -> dict[str, Any]:
    specs = [{"shape": list(x.shape), "dtype": str(x.dtype).removeprefix("torch.")} for x in inputs]
    return {
        "format_version": FORMAT_VERSION,
        "source_sha256": record.source_sha256,
        "weights_sha256": weights_sha256,
        "runtime": runtime,
        "inputs": specs,
        "edits": edits,
        "sample": {"seed": SAMPLE_SEED, "outputs": _sample(program, specs, inputs)},
        "environment": {"torch": torch.__version__, "python": platform.python_version()},
        "record": to_json(record),
    }


def _sample(
    program: ExportedProgram, specs: list[dict[str, Any]], inputs: tuple[Tensor, ...]
) -> list[float]:
    drawn = tuple(
        x.to(like.device) for x, like in zip(draw_inputs(specs, SAMPLE_SEED), inputs, strict=True)
    )
    with torch.no_grad():
        output = program.module(check_guards=False)(*drawn)
    first = output if isinstance(output, Tensor) else output[0]
    return [float(v) for v in first.detach().flatten().float().cpu()[:SAMPLE_VALUES]]


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of an artifact. Raises ArtifactError where it is missing or damaged."""
    path = folder / MANIFEST
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ArtifactError(f"`{folder}` is no artifact: it has no `{MANIFEST}`.") from error
    except (OSError, ValueError) as error:
        raise ArtifactError(f"`{path}` can't be read: {error}.") from error
    if not isinstance(manifest, dict) or manifest.get("format_version") != FORMAT_VERSION:
        raise ArtifactError(f"`{path}` is of another format version; this one reads 1.")
    return manifest


def read_artifact(folder: Path) -> LoadedArtifact:
    """Open an artifact; weights come from the safetensors, whose hash must match the manifest."""
    manifest = read_manifest(folder)
    weights = folder / WEIGHTS
    if not weights.is_file() or sha256(weights) != manifest.get("weights_sha256"):
        raise ArtifactError(f"`{weights}` is missing or was changed after it was written.")
    try:
        program = torch.export.load(folder / PROGRAM)
    except Exception as error:
        first = (str(error).strip() or repr(error)).splitlines()[0]
        raise ArtifactError(
            f"`{folder / PROGRAM}` can't be read by torch {torch.__version__}: {first} "
            "Load the weights onto your own class with `load(folder, model=...)`."
        ) from error
    held = load_file(weights)
    for name, tensor in program.state_dict.items():
        if name in held:
            with torch.no_grad():
                tensor.copy_(held[name])
    return LoadedArtifact(folder, program, manifest)
