"""What fails inside one step or one candidate: the reason of its row, and the run goes on.

What is the user's to set right (the call, the recipe) and Ctrl-C are no such failures.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TypeVar

import torch

from ..configs.recipe import Step
from ..core.errors import UsageError, text_line
from .session import Bench

T = TypeVar("T")
LOG = logging.getLogger("modelspeed")  # `--debug` shows it on stderr


def reason_of(error: Exception, what: str) -> str:
    """Type and first line of what `what` met; the traceback goes to the log. Raises a UsageError
    again."""
    if isinstance(error, UsageError):
        raise error
    LOG.debug("%s failed and is left out", what, exc_info=error)
    if isinstance(error, torch.OutOfMemoryError):
        torch.cuda.empty_cache()  # the next step may need less
    first = text_line(error)
    return f"it failed with {type(error).__name__}: {first}"


def searched(bench: Bench, step: Step, work: Callable[[], T]) -> T | None:
    """What `work` finds out for a step of the recipe; None where it fails, and the step is left
    out with the reason."""
    runtime = bench.runtime
    try:
        return work()
    except Exception as error:
        reason = reason_of(error, f"the search for `{step.name}`")
        place = next(i for i, s in enumerate(bench.recipe.adjust) if s is step)
        bench.failed[place], bench.runtime = reason, runtime
        bench.talk.note(f"the search for `{step.name}`: {reason}; the run goes on without it")
        return None
