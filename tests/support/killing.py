"""Work that is killed (SIGKILL) at its N-th call into the file system, in a fork of this process.

Calls are counted by Python's audit events, so that nothing else is needed; what a library writes
by itself lies between two of them. `traced` counts system calls instead and needs `strace`.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

COUNTED = {
    "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.chmod", "os.listdir", "os.scandir",
    "os.truncate", "os.link", "fcntl.flock", "shutil.rmtree", "ctypes.dlsym",
}  # fmt: skip
# Whatever changes a disk or frees a lock; `strace` counts each of them apart.
SYSTEM = (
    "openat", "mkdir", "mkdirat", "rename", "renameat", "renameat2", "unlink", "unlinkat", "rmdir",
    "chmod", "fchmod", "fchmodat", "write", "pwrite64", "writev", "ftruncate", "fsync", "flock",
    "copy_file_range", "sendfile", "close",
)  # fmt: skip


def killed(work: Callable[[], object], number: int, root: Path) -> bool:
    """Whether it was killed before its end; False when `number` is beyond its last call."""

    def armed() -> None:
        _arm(number, str(root))
        work()

    return _ended_by_kill(_forked(armed))


def traced(call: str, work: Callable[[], object], number: int, root: Path) -> bool:
    """As `killed`, at the entry of the N-th system call of that name."""
    del root

    def stopped() -> None:
        os.kill(os.getpid(), signal.SIGSTOP)
        work()

    child = _forked(stopped)
    os.waitpid(child, os.WUNTRACED)
    inject = f"inject={call}:signal=KILL:when={number}"
    strace = subprocess.Popen(
        ["strace", "-qq", "-o", os.devnull, "-e", f"trace={call}", "-e", inject, "-p", str(child)]
    )
    while "TracerPid:\t0" in Path(f"/proc/{child}/status").read_text() and strace.poll() is None:
        time.sleep(0.001)
    os.kill(child, signal.SIGCONT)
    try:
        return _ended_by_kill(child)
    finally:
        strace.wait()


def every(
    how: Callable[[Callable[[], object], int, Path], bool],
    prepare: Callable[[], Callable[[], object]],
    root: Path,
    step: int = 1,
) -> Iterator[int]:
    """Each kill point of what `prepare` gives, once it was killed there and left as it lay."""
    number = 1
    while how(prepare(), number, root):
        yield number
        number += step


def _forked(work: Callable[[], object]) -> int:
    child = os.fork()
    if child:
        return child
    _work(work)


def _work(work: Callable[[], object]) -> NoReturn:
    try:
        work()
        os._exit(0)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(1)


def _ended_by_kill(child: int) -> bool:
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL, os.WTERMSIG(status)
        return True
    assert os.WEXITSTATUS(status) == 0, "the work itself failed"
    return False


def _arm(number: int, root: str) -> None:
    left = number
    sync = os.fsync

    def count() -> None:
        nonlocal left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    def audit(event: str, args: tuple[Any, ...]) -> None:
        if event in COUNTED or (event == "open" and _within(args, root)):
            count()

    def synced(file: int) -> None:  # without an event of its own
        count()
        sync(file)

    os.fsync = synced  # type: ignore[assignment]
    sys.addaudithook(audit)


def _within(args: tuple[Any, ...], root: str) -> bool:
    """Opened below `root`, or a folder by its place in another one, as `rmtree` does."""
    with suppress(TypeError):
        if os.fsdecode(args[0]).startswith(root):
            return True
    return bool(args[2] & os.O_DIRECTORY)
