"""Things that a run has left out so far, with reasons. Rows are never removed: all are reported."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass, field

import torch

from ..backends.ranking import runtime_row
from ..core.errors import UsageError, text_line
from ..core.progress import Progress
from ..core.records import LeftAlone

LOG = logging.getLogger("modelspeed")  # `--debug` shows it on stderr


@dataclass
class Exclusions:
    """`runtimes`: rows of those that failed or gave other outputs than the plain graph.

    `steps`: by place in the recipe, steps that raised before their turn; `others`: by name, what
    else did.
    """

    progress: Progress
    runtimes: list[LeftAlone] = field(default_factory=list)
    steps: dict[int, str] = field(default_factory=dict)
    others: dict[str, str] = field(default_factory=dict)
    _trusted: dict[str, bool] = field(default_factory=dict)

    def note_runtimes(self, rows: Iterable[LeftAlone]) -> None:
        for row in rows:
            if row not in self.runtimes:
                self.progress.note(f"{row.what} is left out: {row.reason}")
                self.runtimes.append(row)

    def leave_out_runtime(self, name: str, reason: str) -> None:
        """No graph runs under this runtime from here on."""
        self.note_runtimes((LeftAlone(runtime_row(name), reason),))
        self._trusted[name] = False

    def leave_out_step(self, place: int, reason: str) -> None:
        self.steps[place] = reason

    def set_aside(self, name: str, reason: str) -> None:
        self.others[name] = reason

    def trust(self, name: str) -> None:
        """The runtime was compared with the plain graph, and its outputs are the same."""
        self._trusted.setdefault(name, True)

    def is_compared(self, name: str) -> bool:
        return name in self._trusted

    def allows(self, name: str) -> bool:
        return self._trusted.get(name, True)

    @property
    def rows(self) -> tuple[LeftAlone, ...]:
        """Runtimes and what failed; steps have rows of their own."""
        aside = (LeftAlone(name, reason) for name, reason in self.others.items())
        return (*self.runtimes, *aside)


def reason_of(error: Exception, what: str) -> str:
    """Type and first line of what `what` met; the traceback goes to the log.

    Raises a UsageError again: what is the user's to set right is not a failure of one step.
    """
    if isinstance(error, UsageError):
        raise error
    LOG.debug("%s failed and is left out", what, exc_info=error)
    if isinstance(error, torch.OutOfMemoryError):
        torch.cuda.empty_cache()  # the next step may need less
    return f"it failed with {type(error).__name__}: {text_line(error)}"
