"""Files that appear whole: made in a folder beside their place, then put there in one step.

Beside `out` a run makes `.out.tmp-modelspeed-PID-XXXXXXXX`: `lock`, which it holds as long as it
lives, and `new`, where the file or folder grows. The kernel frees the lock (flock) however a run
ends, so whoever gets it may remove the rest; numbers of processes tell nothing, since they are used
again and mean another process in another container. Without a step that exchanges two folders the
earlier one waits in `old` meanwhile, and `recover` brings it back.
"""

from __future__ import annotations

import errno
import os
import re
import secrets
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from .renaming import exchange

LOCK, NEW, OLD = "lock", "new", "old"
_OURS = r"\.{}\.(tmp-modelspeed-\d+-[0-9a-f]{{8}})"
# Of earlier versions, and of no lock: `old` is what was there, all others are half written.
_FORMER = r"\.{}\.(?:(old)-modelspeed-\d+|(?:tmp|probe)-modelspeed-\d+|trial-modelspeed)"


@dataclass(frozen=True)
class Workspace:
    """A place, `new`, to make what is to be at `target`. `mode`: of files, as the umask has it."""

    target: Path
    folder: Path
    mode: int

    @property
    def new(self) -> Path:
        return self.folder / NEW / self.target.name

    def put(self, *, replace: bool) -> None:
        """Put `new` at `target`, complete and on the disk; a folder only `replace`s if told so.

        At every moment one of the two is at `target`, wherever the system can exchange folders.
        Files that were made beside `new` go where `target` is.
        """
        _settle(self.folder / NEW, self.mode)
        beside = [p for p in self.new.parent.iterdir() if p != self.new]
        if beside:  # rather none than the earlier `target` with a part of this one
            self.target.unlink(missing_ok=True)
        for path in beside:
            os.replace(path, self.target.parent / path.name)
        if not (replace and self.new.is_dir() and self.target.exists()):
            os.replace(self.new, self.target)  # refuses a folder that holds something
        elif not exchange(self.new, self.target):
            self._put_in_two_steps()
        sync(self.target.parent)

    def _put_in_two_steps(self) -> None:
        old = self.folder / OLD / self.target.name
        old.parent.mkdir()
        sync(self.folder)
        try:
            os.replace(self.target, old)
            os.replace(self.new, self.target)
        finally:
            _give_back(self.folder, self.target)


@contextmanager
def workspace(target: Path, *, parents: bool = False) -> Iterator[Workspace]:
    """A place to make `target` in, gone at the end with what was not put; dead runs' go first.

    `parents`: folders above that are missing are made, and removed again where nothing was put.
    """
    target = Path(os.path.abspath(target))  # `.` and `..` name no sibling
    recover(target)
    missing = [p for p in target.parents if not p.exists()] if parents else []
    try:
        if missing:
            target.parent.mkdir(parents=True, exist_ok=True)
        folder, lock = _locked_folder(target)
        try:
            yield Workspace(target, folder, stat.S_IMODE(os.fstat(lock).st_mode))
        finally:
            _clear(folder, target)
            _release(lock)
    finally:
        for parent in missing:  # innermost first; one that holds something stays
            with suppress(OSError):
                parent.rmdir()


def recover(target: Path) -> None:
    """Bring back what a killed run had moved away; remove what dead runs left beside `target`.

    What a living run works in stays, and so does all of it where the file system has no locks.
    """
    target = Path(os.path.abspath(target))
    with suppress(OSError):
        for name in os.listdir(target.parent):
            if name.startswith(f".{target.name}."):
                with suppress(OSError):
                    _recover_from(target.parent / name, target)


def _recover_from(path: Path, target: Path) -> None:
    name = re.escape(target.name)
    if former := re.fullmatch(_FORMER.format(name), path.name):
        if former[1] and not os.path.lexists(target):
            os.replace(path, target)
        elif path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
    elif re.fullmatch(_OURS.format(name), path.name) and not path.is_symlink():
        lock = _open(path)
        try:
            if _takes(lock, path):
                _clear(path, target)
        finally:
            _release(lock)


def _locked_folder(target: Path) -> tuple[Path, int]:
    """A new folder beside `target` and its lock, held."""
    while True:
        token = f"{os.getpid()}-{secrets.token_hex(4)}"
        folder = target.parent / f".{target.name}.tmp-modelspeed-{token}"
        folder.mkdir()
        # Another run may take it for a dead one's before it is locked: then once more.
        with suppress(FileNotFoundError):
            lock = _open(folder)
            try:
                locked = _takes(lock, folder)
            except OSError:
                locked = True  # no locks on this file system, so nobody removes it either
            if locked:
                (folder / NEW).mkdir()
                return folder, lock
            _release(lock)


def _open(folder: Path) -> int:
    return os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)


def _takes(lock: int, folder: Path) -> bool:
    """True if this process holds the lock now. Raises OSError where the file system has no
    locks."""
    import fcntl

    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return os.path.samestat(os.fstat(lock), (folder / LOCK).stat())
    except (BlockingIOError, FileNotFoundError):
        return False


def _release(lock: int) -> None:
    import fcntl

    # Explicitly: a forked worker of the user's data may hold a copy of the descriptor.
    with suppress(OSError):
        fcntl.flock(lock, fcntl.LOCK_UN)
    os.close(lock)


def _clear(folder: Path, target: Path) -> None:
    if _give_back(folder, target):
        shutil.rmtree(folder, ignore_errors=True)


def _give_back(folder: Path, target: Path) -> bool:
    """True if nothing is lost when `folder` goes: what it holds in `old` is back in its place."""
    old = folder / OLD / target.name
    with suppress(OSError):
        if os.path.lexists(old) and not os.path.lexists(target):
            os.replace(old, target)
    return os.path.lexists(target) or not os.path.lexists(old)


def _settle(folder: Path, mode: int) -> None:
    """All of it on the disk before it has its name: after a power loss a name is not without
    its content. Files get the mode that the umask gives; libraries write some as 0600."""
    for path in folder.rglob("*"):
        if not path.is_dir():
            path.chmod(mode)
        sync(path)
    sync(folder)


def sync(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk."""
    file = os.open(path, os.O_RDONLY)
    try:
        os.fsync(file)
    except OSError as error:
        # Some network and user-space file systems sync no folders.
        if error.errno not in (errno.EINVAL, errno.ENOTSUP) or not path.is_dir():
            raise
    finally:
        os.close(file)
