"""A graph compiled for the first shapes that it is called with."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from typing import Any

from ..core.errors import MeasureError, text_line
from .shape_guard import Fast, Kinds, kinds

MAX_SHAPES = 8  # calls of more shapes than these would compile again and again


class CompiledByShape:
    """`compile` makes what runs for inputs like those it is given, or raises whatever it raises."""

    def __init__(self, runtime: str, compile: Callable[[Sequence[Any]], Fast]) -> None:
        self._runtime, self._compile, self._process = runtime, compile, os.getpid()
        self._ready: dict[Kinds, Fast | None] = {}
        self._lock = threading.Lock()

    def first(self, flat: Sequence[Any]) -> None:
        """Raises MeasureError where the graph, or inputs like these, are not taken."""
        try:
            self._ready[kinds(flat)] = self._compile(flat)
        except Exception as error:
            raise MeasureError(
                f"{self._runtime} fails on this model: {text_line(error)}"
            ) from error

    def of(self, flat: Sequence[Any]) -> Fast | None:
        """The function for inputs like these; None if they are not taken, or MAX_SHAPES others are.

        Nor are any in a process that was forked from this one: threads do not survive that, and
        the library would wait for its own.
        """
        kind = kinds(flat)
        if self._process != os.getpid():
            return None
        try:
            return self._ready[kind]
        except KeyError:
            return self._made(kind, flat)

    def _made(self, kind: Kinds, flat: Sequence[Any]) -> Fast | None:
        with self._lock:
            if kind not in self._ready:
                if len(self._ready) >= MAX_SHAPES:
                    return None
                try:
                    self._ready[kind] = self._compile(flat)
                except Exception:  # the plain graph takes them, or says what is wrong with them
                    self._ready[kind] = None
            return self._ready[kind]
