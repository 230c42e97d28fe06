"""Read a checkpoint, whatever it holds, without running what it carries."""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram

from ..core.errors import CheckpointError
from .pickles import refuse_code, refuse_code_in_program
from .weights import check_finite, fill, state_dict_of, unwrap_model

Kind = Literal["pt2", "state_dict", "safetensors", "pickle"]
Factory = Callable[..., nn.Module]
# A stored (uncompressed) torch archive is about as large as what it declares.
MAX_INFLATION = 20


@dataclass(frozen=True)
class Source:
    """A checkpoint as an eval-mode module. `program` where it was exported."""

    path: Path
    kind: Kind
    module: nn.Module
    program: ExportedProgram | None
    sha256: str


def read(
    path: Path,
    *,
    factory: Factory | None = None,
    args: Mapping[str, Any] | None = None,
    trust_pickle: bool = False,
) -> Source:
    """Open `path`; the format is told from the content.

    Raises CheckpointError in one sentence for anything unreadable, UnsafePickle where reading
    would run code and `trust_pickle` is not set.
    """
    kind = _detect(path)
    digest = sha256(path)
    if kind == "pt2":
        program = _program(path, trust_pickle)
        check_finite(path, {**program.state_dict})
        return Source(path, "pt2", program.module(check_guards=False), program, digest)
    held = _safetensors(path) if kind == "safetensors" else _torch_file(path, trust_pickle)
    held = unwrap_model(held)
    if isinstance(held, nn.Module):
        check_finite(path, held.state_dict())
        return Source(path, "pickle", held.eval(), None, digest)
    weights = state_dict_of(path, held)
    module = _built(path, factory, args or {})
    fill(path, module, weights)
    return Source(
        path,
        "safetensors" if kind == "safetensors" else "state_dict",
        module.eval(),
        None,
        digest,
    )


def sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _detect(path: Path) -> Literal["pt2", "safetensors", "torch"]:
    if not path.exists():
        raise CheckpointError(f"`{path}` does not exist.")
    if not path.is_file():
        found = "a folder" if path.is_dir() else "no regular file"
        raise CheckpointError(f"`{path}` is {found}; name a checkpoint file.")
    size = path.stat().st_size
    if size == 0:
        raise CheckpointError(f"`{path}` is empty.")
    with path.open("rb") as file:
        head = file.read(9)
    if head[:2] == b"PK":
        return _archive(path, size)
    header = int.from_bytes(head[:8], "little")
    if head[8:9] == b"{" and (header < size or path.suffix == ".safetensors"):
        return "safetensors"
    if head[:1] == b"\x80":  # a bare pickle, as torch wrote before 1.6
        return "torch"
    raise CheckpointError(
        f"`{path}` is no checkpoint: it is neither .pt2, .pt/.pth nor .safetensors."
    )


def _archive(path: Path, size: int) -> Literal["pt2", "torch"]:
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
    except (zipfile.BadZipFile, OSError, ValueError) as error:
        raise CheckpointError(f"`{path}` is truncated or damaged: {error}.") from error
    if sum(e.file_size for e in entries) > MAX_INFLATION * size + (1 << 20):
        raise CheckpointError(f"`{path}` would inflate to far more than its size; it is refused.")
    names = [e.filename.partition("/")[2] for e in entries]
    if any(n == "constants.pkl" or n.startswith("code/") for n in names) and "data.pkl" in names:
        raise CheckpointError(
            f"`{path}` is a TorchScript archive, which is deprecated; export it with "
            "`torch.export.save` or give the state dict and `--model FILE.py:factory`."
        )
    if "data.pkl" in names:
        return "torch"
    if any(
        n.startswith(("models/", "archive_format")) or "serialized" in n
        for n in [*names, *(e.filename for e in entries)]
    ):
        return "pt2"
    raise CheckpointError(f"`{path}` is a zip archive, but no PyTorch checkpoint.")


def _program(path: Path, trust_pickle: bool) -> ExportedProgram:
    try:
        if not trust_pickle:
            refuse_code_in_program(path)
        # A file object: given a name, torch warns where it does not end in `.pt2`.
        with path.open("rb") as file:
            return torch.export.load(file)
    except CheckpointError:
        raise
    except Exception as error:
        raise CheckpointError(f"`{path}` can't be read as .pt2: {_first(error)}") from error


def _safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError, KeyError) as error:
        raise CheckpointError(
            f"`{path}` is truncated or no safetensors file: {_first(error)}"
        ) from error


def _torch_file(path: Path, trust_pickle: bool) -> Any:
    if not trust_pickle:
        refuse_code(path)
    try:
        return torch.load(path, map_location="cpu", weights_only=not trust_pickle)
    except (AttributeError, ImportError) as error:
        raise CheckpointError(
            f"`{path}` needs a class that can't be imported here: {_first(error)}"
        ) from error
    except Exception as error:
        raise CheckpointError(f"`{path}` is truncated or damaged: {_first(error)}") from error


def _built(path: Path, factory: Factory | None, args: Mapping[str, Any]) -> nn.Module:
    if factory is None:
        raise CheckpointError(
            f"`{path}` holds weights alone; name the class with "
            "`--model FILE.py:factory` or `model.factory` in the recipe."
        )
    module = factory(**args)
    if not isinstance(module, nn.Module):
        raise CheckpointError(
            f"the model factory returned {type(module).__name__}; it must return an `nn.Module`."
        )
    return module


def _first(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return (lines[0] if lines else type(error).__name__).rstrip(".") + "."
