"""The interpreter that verifies, started while the run still loads: its imports take seconds."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import torch

from ..core.errors import MeasureError, ModelspeedError, OutputsDiffer
from ..core.processes import die_with_parent, python
from ..core.records_json import to_json
from ..profiling.gate import working

VERIFICATION = "modelspeed.tuning.verification"
LOOK = 60.0  # seconds between looks at the clock
_waiting: list[subprocess.Popen[str]] = []
_ahead: list[float] = []  # seconds of imports, of those that wait


def started(module: str = VERIFICATION) -> subprocess.Popen[str]:
    """A new interpreter that imports what `module` needs, says so, and waits for its request."""
    pipe = subprocess.PIPE
    words = python("-m", module, str(os.getpid()))
    return subprocess.Popen(words, stdin=pipe, stdout=pipe, stderr=pipe, text=True)


@contextmanager
def started_ahead(wanted: bool = True) -> Iterator[None]:
    """Start the one that the first verification in the block will take."""
    process = started() if wanted else None
    if process is not None:
        _waiting.append(process)
    try:
        yield
    finally:
        if process in _waiting:
            _waiting.remove(process)
            process.kill()
            process.communicate()


def wait_for_imports() -> None:
    """Return once none of them computes any more, so that what is measured has the cores."""
    for process in _waiting:
        assert process.stdout is not None
        line = process.stdout.readline()  # empty where it failed: that is told when it is taken
        with suppress(ValueError):  # of a library that greets on being imported
            _ahead[:] = [float(line or 0.0)]


def taken() -> subprocess.Popen[str]:
    """The one that was started ahead, or else a new one."""
    if _waiting:
        return _waiting.pop()
    _ahead.clear()
    return started()


def imported_ahead() -> float:
    """Seconds of imports that the last one taken had behind it: the next one takes so much more."""
    return sum(_ahead)


def answer_of(
    fresh: subprocess.Popen[str], request: Any, seconds: float = math.inf
) -> dict[str, Any]:
    """The answer of `answer_request` there; with a sentence as `error` where that has failed.

    Raises MeasureError where it has not come after `seconds`.
    """
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        torch.cuda.empty_cache()  # the other process needs the GPU's memory now
    done = ended(fresh, json.dumps(request), seconds)
    last = (done.stdout.strip().splitlines() or [""])[-1]
    answer: dict[str, Any] = json.loads(last) if last.startswith("{") else {}
    if answer and not done.returncode and "error" not in answer:
        return answer
    reason = answer.get("error") or (done.stderr.strip().splitlines() or ["no answer"])[-1]
    return {**answer, "error": reason}


def ended(
    fresh: subprocess.Popen[str], text: str, seconds: float
) -> subprocess.CompletedProcess[str]:
    """The process after it was given `text`, within seconds of work: in a batch it may have to
    stand still for others."""
    deadline, given = working() + seconds, iter((text,))
    with fresh as process:
        try:
            while working() < deadline:
                with suppress(subprocess.TimeoutExpired):
                    look = max(0.01, min(LOOK, deadline - working()))
                    out, err = process.communicate(next(given, None), look)
                    return subprocess.CompletedProcess(process.args, process.returncode, out, err)
        except BaseException:  # Ctrl-C, too
            process.kill()
            raise
        process.kill()
    raise MeasureError(
        f"the fresh process that verifies the written artifact had not ended after {seconds:.0f} s "
        "and was stopped: something in it waits for ever, such as the loading of `data`."
    )


def answer_request(respond: Callable[[dict[str, Any]], Any]) -> None:
    """The fresh process's side: say how long the imports took, wait, and answer with the record
    that `respond` makes of the request. Ends silently where none comes."""
    die_with_parent(int(sys.argv[1]))
    from torch._export.serde import serialize  # noqa: F401  (what reads programs takes a second)

    print(f"{time.process_time():.2f}", flush=True)
    text = sys.stdin.read()
    if not text:
        return  # the run ended before there was anything to ask
    try:
        answer = to_json(respond(json.loads(text)))
    except OutputsDiffer as error:
        answer = {"error": str(error), "differs": error.runtime}
    except (ModelspeedError, OSError) as error:
        answer = {"error": str(error)}
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()
