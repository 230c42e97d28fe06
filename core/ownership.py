"""Ownership of files that would run as code, as git asks for it before it trusts a folder.

Whoever owns a file, or may write to it or to a folder above it, decides what runs.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path

_IMPORTED = (".py", ".pyc", ".so")


def objection(code: Iterable[Path], tops: Iterable[Path] = ()) -> str:
    """The reason why the files must not run unasked, as `PATH belongs to ...`; empty if all is
    well.

    Folders count up to the highest of `tops` that holds a file; the file's own always counts, with
    what Python would import from it. Owners must be this user, or for root who called `sudo`.
    """
    if not hasattr(os, "geteuid"):
        return ""
    tops = [Path(os.path.abspath(top)) for top in tops]
    for path in dict.fromkeys(p for file in code for p in _deciding(file, tops)):
        if reason := _foreign(path):
            return f"`{path}` {reason}"
    return ""


def _deciding(file: Path, tops: list[Path]) -> Iterator[Path]:
    """The file, where it leads as a link, and the folders above both."""
    for path, ends in (
        (Path(os.path.abspath(file)), tops),
        (file.resolve(), [top.resolve() for top in tops]),
    ):
        yield path
        counts = [i for i, folder in enumerate(path.parents) if folder in ends]
        yield from path.parents[: max([0, *counts]) + 1]
        if path.suffix == ".py":
            yield from _importable(path.parent)


def _importable(folder: Path) -> Iterator[Path]:
    """Files that `import` finds beside a file, in folders of modules there too, and what is
    compiled of it, which Python reads in its place."""
    waiting, seen = [folder], set[Path]()
    while waiting:
        here = waiting.pop()
        if here.resolve() in seen:  # a link may lead to a folder above
            continue
        seen.add(here.resolve())
        for entry in _entries(here):
            if entry.suffix in _IMPORTED:
                yield from _with_target(entry)
            elif entry.name == "__pycache__":
                yield from (entry, *_entries(entry))
            elif entry.name.isidentifier() and any(e.suffix in _IMPORTED for e in _entries(entry)):
                yield from _with_target(entry)
                waiting.append(entry)


def _entries(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError:  # of a file too
        return []


def _with_target(path: Path) -> list[Path]:
    return [path, path.resolve()] if path.is_symlink() else [path]


def _foreign(path: Path) -> str:
    try:
        status = path.lstat()
    except OSError:
        return ""  # that it is not there is told by who opens it
    if status.st_uid not in _selves():
        return f"belongs to user {status.st_uid}, not to you"
    if stat.S_ISLNK(status.st_mode):
        return ""  # a link's own mode means nothing
    if status.st_mode & stat.S_IWOTH:
        return "can be written by every user"
    if status.st_mode & stat.S_IWGRP and not _private(status.st_gid):
        return f"can be written by all of group {status.st_gid}"
    return ""


def _selves() -> set[int]:
    user, before = os.geteuid(), os.environ.get("SUDO_UID", "")
    by_sudo = {int(before)} if user == 0 and before.isascii() and before.isdigit() else set()
    return {user, *by_sudo}


def _private(group: int) -> bool:
    """The group of one user alone, as many systems make it: with it a file is still one's own."""
    import grp
    import pwd

    try:
        entry, user = grp.getgrgid(group), pwd.getpwuid(os.geteuid())
    except KeyError:  # a container without names
        return group == os.geteuid()
    own = entry.gr_name == user.pw_name and group == user.pw_gid
    return own and set(entry.gr_mem) <= {user.pw_name}
