"""A graph compiled for each shape that it is called with; a bounded number of them is kept."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any

from ..core.errors import MeasureError, text_line
from .shape_guard import Fast, Kinds, kinds

MAX_SHAPES = 8  # the oldest goes


class CompiledByShape:
    """`compile` makes what runs for inputs like those it is given, or raises whatever it raises."""

    def __init__(self, runtime: str, compile: Callable[[Sequence[Any]], Fast]) -> None:
        self._runtime, self._compile, self._process = runtime, compile, os.getpid()
        self._ready: OrderedDict[Kinds, Fast | None] = OrderedDict()
        self._lock = threading.Lock()

    def first(self, flat: Sequence[Any]) -> None:
        """Raises MeasureError where the graph, or inputs like these, are not taken."""
        try:
            self._keep(kinds(flat), self._compile(flat))
        except Exception as error:
            raise MeasureError(
                f"{self._runtime} fails on this model: {text_line(error)}"
            ) from error

    def of(self, flat: Sequence[Any]) -> Fast | None:
        """The function for inputs like these; None if they are not taken.

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
                try:
                    fast: Fast | None = self._compile(flat)
                except Exception:  # the plain graph takes them, or says what is wrong with them
                    fast = None
                self._keep(kind, fast)
            return self._ready[kind]

    def _keep(self, kind: Kinds, fast: Fast | None) -> None:
        self._ready[kind] = fast
        if len(self._ready) > MAX_SHAPES:
            self._ready.popitem(last=False)
