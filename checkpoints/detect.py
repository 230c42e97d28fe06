"""The format of a file, told from its content; what can't be a checkpoint is refused unread."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Literal

from ..core.errors import CheckpointError

Found = Literal["pt2", "safetensors", "torch", "index", "torchscript"]
INDEX = ".safetensors.index.json"
# A stored (uncompressed) torch archive is about as large as what it declares.
MAX_INFLATION = 20


def detect(path: Path) -> Found:
    """The format of the regular file `path`. Raises CheckpointError if it is not a checkpoint."""
    if not path.exists():
        raise CheckpointError(f"`{path}` does not exist.")
    if not path.is_file():
        raise CheckpointError(f"`{path}` is not a regular file; name a checkpoint file.")
    size = path.stat().st_size
    if size == 0:
        raise CheckpointError(f"`{path}` is empty.")
    if path.name.endswith(INDEX):
        return "index"
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
        f"`{path}` is not a checkpoint: it is neither .pt2, .pt/.pth/.ckpt nor .safetensors."
    )


def is_script(path: Path) -> bool:
    """True for a TorchScript archive. Raises CheckpointError as `detect` does."""
    return not path.is_dir() and detect(path) == "torchscript"


def _archive(path: Path, size: int) -> Literal["pt2", "torch", "torchscript"]:
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise CheckpointError(f"`{path}` is truncated or damaged: {error}.") from error
    if sum(e.file_size for e in entries) > MAX_INFLATION * size + (1 << 20):
        raise CheckpointError(f"`{path}` would inflate to far more than its size; it is refused.")
    names = [e.filename.partition("/")[2] for e in entries]
    if any(n == "constants.pkl" or n.startswith("code/") for n in names) and "data.pkl" in names:
        return "torchscript"
    if "data.pkl" in names:
        return "torch"
    if any(
        n.startswith(("models/", "archive_format")) or "serialized" in n
        for n in [*names, *(e.filename for e in entries)]
    ):
        return "pt2"
    raise CheckpointError(f"`{path}` is a zip archive, but no PyTorch checkpoint.")
