"""The one place that turns errors into a sentence and an exit code."""

from __future__ import annotations

import errno
import logging
import shlex
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import typer

from ..core.errors import text_line, ModelspeedError
from ..reporting.text import clean

INTERRUPTED = 130
NO_MEMORY = "there is not enough memory; try a smaller `--batch`."
# How torch's allocators say it, in a RuntimeError.
_ALLOCATORS = (
    "can't allocate memory", "CUDA out of memory", "CUDA error: out of memory",
    "STATUS_ALLOC_FAILED", "std::bad_alloc",
)  # fmt: skip


@contextmanager
def shown(
    debug: bool, resumable: bool = False, left: str = "nothing was written"
) -> Iterator[None]:
    """Errors of the block end the program with their sentence on stderr; `debug` lets them out.

    `resumable`: the command has `--resume` to go on with after it was stopped; `left`: what is
    left then.
    """
    if not debug:
        # What libraries say to each other about their next versions helps no user.
        for category in (FutureWarning, DeprecationWarning):
            warnings.simplefilter("ignore", category)
    log = logging.getLogger("modelspeed")
    handler = logging.StreamHandler(sys.stderr)
    if debug:  # tracebacks of what failed inside a run that goes on
        log.addHandler(handler)
        log.setLevel(logging.DEBUG)
    try:
        yield
    except typer.Exit:  # a RuntimeError by descent, and no error
        raise
    except ModelspeedError as error:
        _end(debug, str(error), error.exit_code)
    except KeyboardInterrupt:
        then = f"\nto go on from here: {_resuming()}" if resumable else ""
        _end(debug, f"stopped; {left}.{then}", INTERRUPTED)
    except OSError as error:
        reason = "the disk is full" if error.errno == errno.ENOSPC else str(error)
        _end(debug, f"{reason}.", 1)
    except MemoryError:
        _end(debug, NO_MEMORY, 1)
    except Exception as error:
        if any(mark in str(error) for mark in _ALLOCATORS):
            _end(debug, NO_MEMORY, 1)
        first = text_line(error)
        _end(debug, f"unexpected {type(error).__name__}: {first} (`--debug` shows more)", 1)
    finally:
        log.removeHandler(handler)


def _resuming() -> str:
    words = [w for w in sys.argv[1:] if w != "--resume"]
    return shlex.join(["modelspeed", *words, "--resume"])


def _end(debug: bool, sentence: str, code: int) -> None:
    if debug:
        raise
    for line in sentence.splitlines():
        sys.stderr.write(f"modelspeed: {clean(line)}\n")
    raise typer.Exit(code)
