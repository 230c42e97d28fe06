"""A file for torch's archive writers, which end the whole process where a write fails.

Their destructor writes the archive's end and throws on a full disk, so C++ terminates. Given a
file that takes everything they come to their end, and the first error is raised after that.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, cast

if TYPE_CHECKING:
    from typing_extensions import Buffer


@contextmanager
def archive(path: Path) -> Iterator[IO[bytes]]:
    """The file at `path`, for writing. Raises OSError at the end where it could not be written."""
    with path.open("wb", buffering=0) as file:
        writer = _TakesAll(file)
        yield cast(IO[bytes], writer)
    if writer.error is not None:
        raise writer.error


class _TakesAll(io.RawIOBase):
    def __init__(self, file: io.FileIO) -> None:
        super().__init__()
        self._file = file
        self.error: OSError | None = None

    def writable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return self._file.seek(offset, whence)  # torch does so when all is written

    def write(self, data: Buffer) -> int:
        left = memoryview(data).cast("B")
        size = len(left)
        try:
            while len(left) and self.error is None:  # a nearly full disk takes a part
                left = left[self._file.write(left) :]
        except OSError as error:
            self.error = error
        return size
