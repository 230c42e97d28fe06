"""Foreign errors as the end of a sentence."""

from __future__ import annotations

_RAW = (LookupError, TypeError, AttributeError, AssertionError, ArithmeticError, RecursionError)


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
