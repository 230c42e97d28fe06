"""Every error a user can meet, as one tree.

ModelspeedError                 exit 1   something failed
├── UsageError                  exit 2   the call, a flag or a recipe is wrong
│   └── ConfigError             exit 2   all problems of a recipe, collected
├── CheckpointError             exit 1   the file can't be read or is not what it claims
│   └── UnsafePickle            exit 1   reading it would run code
├── CaptureError                exit 1   `torch.export` can't capture the model
├── EditError                   exit 1   an edit does not fit the graph
├── DataError                   exit 1   the user's data or metric is unusable
├── MeasureError                exit 1   a measurement can't be made as asked
│   └── OutputsDiffer           exit 1   a runtime computes something else than the plain graph
├── ArtifactError               exit 1   an artifact or record can't be written or loaded
├── TooLate                     exit 1   no rung of a ladder answers within the budget
├── Refused                     exit 1   a stream does not take or keep a request
└── MissingExtra                exit 2   an optional dependency is not installed

Sentences say where, what was found, what is allowed and what to do; the user's names stand in
backticks. Only `cli` prints them.
"""

from __future__ import annotations

from collections.abc import Sequence

_RAW = (LookupError, TypeError, AttributeError, AssertionError, ArithmeticError, RecursionError)


class ModelspeedError(Exception):
    exit_code = 1


class UsageError(ModelspeedError):
    exit_code = 2


class ConfigError(UsageError):
    """All problems of one recipe. `problems` holds one sentence each; the first ones are shown."""

    SHOWN = 20

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = tuple(problems)
        shown, more = self.problems[: self.SHOWN], len(self.problems) - self.SHOWN
        count = (f"and {more} more problem{'s' if more > 1 else ''}.",) if more > 0 else ()
        super().__init__("\n".join((*shown, *count)))


class CheckpointError(ModelspeedError):
    pass


class UnsafePickle(CheckpointError):
    pass


class CaptureError(ModelspeedError):
    pass


class EditError(ModelspeedError):
    pass


class DataError(ModelspeedError):
    pass


class MeasureError(ModelspeedError):
    pass


class OutputsDiffer(MeasureError):
    """`runtime`: the one whose outputs differ, where it is known."""

    def __init__(self, text: str, runtime: str = "") -> None:
        self.runtime = runtime
        super().__init__(text)


class ArtifactError(ModelspeedError):
    pass


class TooLate(ModelspeedError):
    pass


class Refused(ModelspeedError):
    """`reason`: `late`, `full` or `closed`."""

    def __init__(self, text: str, reason: str) -> None:
        self.reason = reason
        super().__init__(text)


class MissingExtra(UsageError):
    pass


class MachineWarning(UserWarning):
    """An artifact is loaded where its latencies were not measured; it computes the same."""


def first_line(error: BaseException) -> str:
    """The first line of an error's text, or its kind, with one full stop.

    Errors that Python raises where data is not as expected are said to be that."""
    if isinstance(error, _RAW):  # "list index out of range" tells a user nothing
        kind = type(error).__name__
        return f"what it holds is not as it must be ({kind}: {text_line(error)})."
    return f"{text_line(error)}."


def text_line(error: BaseException) -> str:
    """The same without a full stop, of errors that are about code and not about a file."""
    text = error.args[0] if isinstance(error, KeyError) and error.args else error
    lines = str(text).strip().splitlines()
    return (lines[0] if lines else type(error).__name__).rstrip(".")[:300]
