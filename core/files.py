"""Files that are there whole or not at all, and texts that are read with doubt."""

from __future__ import annotations

import hashlib
import os
import stat
from pathlib import Path

from .errors import ArtifactError
from .workspace import workspace

PACKAGE = "model.aoti.pt2"
# Converted graphs of other libraries, which hold no code.
OPENVINO_FILES = ("model.openvino.xml", "model.openvino.bin")
ONNX_FILES = ("model.onnx",)
CONVERTED = (*OPENVINO_FILES, *ONNX_FILES)
MAX_PACKAGE_BYTES = 2 << 30  # bytes; it is read whole, so that what was hashed is what runs
MAX_BYTES = 256 << 20  # of a record: with all raw samples some MB are usual


def write_whole(path: Path, content: str | bytes) -> None:
    """Written under another name and renamed; what was there stays where the disk refuses.

    A link stays one; a pipe, such as `/dev/stdout`, is written to.
    """
    data = content.encode() if isinstance(content, str) else content
    if path.exists() and not path.is_file():
        path.write_bytes(data)
        return
    with workspace(path.resolve()) as space:
        space.new.write_bytes(data)
        space.put(replace=True)


def sha256(*paths: Path) -> str:
    """Of the files' contents, one after the other."""
    digest = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def read_text(path: Path) -> str:
    """The whole of a regular file. Raises OSError, UnicodeDecodeError, or ArtifactError for a
    device, a pipe that would be waited for, or more than `MAX_BYTES`."""
    # Not blocking: opening a pipe that nobody writes to would never end.
    with open(os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0)), "rb") as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise ArtifactError(f"`{path}` is not a regular file; it is refused.")
        if status.st_size > MAX_BYTES:
            raise ArtifactError(f"`{path}` is larger than {MAX_BYTES >> 20} MB; it is refused.")
        return file.read(MAX_BYTES).decode("utf-8")
