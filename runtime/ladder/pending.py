"""Answers to come of a stream."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any

from .batching import Call


class Pending(Future[Any]):
    """The answer to come. `how`: the ladder's word on how it came about, once it is there."""

    def __init__(self, call: Call, deadline: float, forget: Callable[[Pending], object]) -> None:
        super().__init__()
        self.call, self.deadline, self._forget = call, deadline, forget
        self.how: Any = None

    def cancel(self) -> bool:
        """Take the request back; False where it runs or has ended."""
        taken = super().cancel()
        if taken:
            self._forget(self)
        return taken


def end_with_error(requests: Sequence[Pending], error: BaseException) -> None:
    """End those that have not ended, with `error`."""
    for request in requests:
        if not request.done() and (request.running() or request.set_running_or_notify_cancel()):
            request.set_exception(error)
