"""Foreign errors as the end of a sentence."""

from __future__ import annotations


def first_line(error: BaseException) -> str:
    """The first line of an error's text, or its kind, with one full stop."""
    text = error.args[0] if isinstance(error, KeyError) and error.args else error
    lines = str(text).strip().splitlines()
    return (lines[0] if lines else type(error).__name__).rstrip(".")[:300] + "."
