"""Requests with deadlines, answered in batches by whichever rung is best for all that wait."""

from __future__ import annotations

import asyncio
import atexit
import math
import threading
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol

import torch

from ...core.errors import Refused, UsageError
from .batching import Call, apart, check_single, kind_of, together
from .counts import Counts
from .pending import Pending, end_with_error
from .policy import Policy
from .predictor import CONFIDENCE, Predictor
from .scheduler import Round, Scheduler

if TYPE_CHECKING:
    from typing_extensions import Self

SENTENCES = {
    "late": "the request can't be answered by its deadline; it is refused so that others can.",
    "full": "the stream's queue is full.",
    "closed": "the stream was closed before the request ran.",
}


class Answers(Protocol):
    """A ladder, as its streams see it."""

    predictor: Predictor
    counts: Counts

    def run(
        self, rung: int, batch: int, args: Sequence[Any], kwargs: Any, *, fits: bool
    ) -> tuple[Any, Any]: ...


class Stream:
    """A queue before a ladder, worked off by one thread in order of deadlines.

    Each request ends exactly once: with its answer, with the exception that its own inputs raise,
    with `Refused`, or canceled by who submitted it. `start=False`: no thread; `serve_once` is
    called instead, such as in a simulation. `clock` is in ms.
    """

    def __init__(
        self,
        ladder: Answers,
        policy: Policy,
        *,
        slo_ms: float,
        max_queue: int,
        clock: Callable[[], float],
        confidence: float = CONFIDENCE,
        start: bool = True,
        on_close: Callable[[Stream], object] = lambda stream: None,
    ) -> None:
        check_limits(slo_ms, max_queue)
        self._ladder, self._slo, self._clock, self._on_close = ladder, slo_ms, clock, on_close
        self._policy, self._confidence = policy, confidence
        self._scheduler: Scheduler[Pending] = Scheduler(policy, max_queue)
        self._wake = threading.Condition()
        self._closed = False
        self._alone = False  # outputs that can't be split: one request at a time
        self._thread: threading.Thread | None = None
        if start:
            self._thread = threading.Thread(target=self._serve, name="modelspeed", daemon=True)
            self._thread.start()
            # A daemon, so that a program that forgets to close its streams ends all the same.
            atexit.register(self.close, drain=False)

    def submit(self, *args: Any, slo_ms: float | None = None, **kwargs: Any) -> Pending:
        """The answer to come for one example with a batch dimension of 1.

        `slo_ms`: the time it has, instead of the stream's. What can't be in time fails with
        `Refused` at once. Raises UsageError for inputs of more than one example, and once closed.
        """
        call: Call = (args, kwargs)
        check_single(call)
        now = self._clock()
        slo = self._slo if slo_ms is None else slo_ms
        if math.isnan(slo):
            raise UsageError("`slo_ms` is not a number.")
        request = Pending(call, now + slo, self._forget)
        with self._wake:
            if self._closed:
                raise UsageError("the stream is closed; open another with `ladder.stream()`.")
            reason = self._scheduler.submit(request, request.deadline, now)
            if reason is None:
                self._wake.notify()
        if reason is not None:
            self._refuse((request,), reason)
        return request

    async def __call__(self, *args: Any, slo_ms: float | None = None, **kwargs: Any) -> Any:
        """The answer; for asyncio. Raises `Refused`, or what the inputs raise."""
        return await asyncio.wrap_future(self.submit(*args, slo_ms=slo_ms, **kwargs))

    def __len__(self) -> int:
        """Requests that wait."""
        return len(self._scheduler)

    def serve_once(self) -> bool:
        """Refuse and run what the policy decides on; False if nothing waits."""
        with self._wake:
            now = self._clock()
            found = self._scheduler.next(now)
            if found is None:
                return False
            size = self._size(found.rung, len(found.requests)) if found.requests else 0
            if size:
                expected = self._ladder.predictor.expected_ms(found.rung, size)
                self._scheduler.started(now + expected)
        self._refuse(found.refused, "late")
        try:
            self._run(found)
        except BaseException as error:  # nobody may wait for an answer that never comes
            end_with_error(found.requests, error)
            raise
        finally:
            with self._wake:
                self._scheduler.ended()
        return True

    def close(self, *, drain: bool = True) -> None:
        """Take no more requests, and return when the last one has ended.

        `drain`: those that wait are still answered; otherwise they fail with `Refused`.
        """
        with self._wake:
            first, self._closed = not self._closed, True
            left = () if drain else self._scheduler.take_all()
            self._wake.notify_all()
        self._refuse(left, "closed")
        if self._thread is None:
            while drain and self.serve_once():
                pass
        elif self._thread is not threading.current_thread():
            self._thread.join()
        if first:
            self._leave()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:  # fmt: skip
        self.close(drain=kind is None)

    def _serve(self) -> None:
        try:
            while self._waits():
                self.serve_once()
        except BaseException as error:
            with self._wake:
                first, self._closed = not self._closed, True
                left = self._scheduler.take_all()
            if first:
                self._leave()
            end_with_error(left, error)
            raise

    def _leave(self) -> None:
        """Be forgotten by the ladder, and by the end of the program."""
        atexit.unregister(self.close)
        self._on_close(self)

    def _waits(self) -> bool:
        """True once a request waits; False when none will any more."""
        with self._wake:
            while not len(self._scheduler) and not self._closed:
                self._wake.wait()
            return bool(len(self._scheduler))

    def _run(self, found: Round[Pending]) -> None:
        ready = [request for request in found.requests if self._takes(request)]
        groups: dict[Any, list[Pending]] = {}
        for request in ready:
            key = id(request) if self._alone else kind_of(request.call)
            groups.setdefault(key, []).append(request)
        for group in groups.values():
            if not self._run_together(found.rung, group):
                for request in group:
                    self._run_alone(found.rung, request)

    def _run_together(self, rung: int, group: list[Pending]) -> bool:
        """False if it fails and there is more than one, of which one may be the cause."""
        if len(group) == 1:
            self._run_alone(rung, group[0])
            return True
        size = self._size(rung, len(group))
        try:
            outputs, how = self._call(rung, size, group)
            rows = apart(outputs, size, len(group))
        except BaseException:
            return False
        if rows is None:
            self._alone = True
            with self._wake:  # whoever submits asks the policy, too
                self._policy.run_singly()
            return False
        self._answer(group, rows, how)
        return True

    def _run_alone(self, rung: int, request: Pending) -> None:
        size = self._size(rung, 1)
        try:
            outputs, how = self._call(rung, size, [request])
            rows = [outputs] if size == 1 else apart(outputs, size, 1)
            if rows is None:
                raise UsageError(
                    f"the graph takes batches of {size} only and an output has no row for each "
                    "example, so requests can't be answered one by one."
                )
        except BaseException as error:
            self._ladder.counts.failed()
            request.set_exception(error)
            return
        self._answer([request], rows, how)

    def _call(self, rung: int, size: int, group: Sequence[Pending]) -> tuple[Any, Any]:
        left = min(request.deadline for request in group) - self._clock()
        fits = self._ladder.predictor.fits(rung, left, size, self._confidence)
        args, kwargs = together([request.call for request in group], size)
        with torch.no_grad():
            return self._ladder.run(rung, size, args, kwargs, fits=fits)

    def _answer(self, group: Sequence[Pending], rows: Sequence[Any], how: Any) -> None:
        now = self._clock()
        late = sum(now > request.deadline for request in group)
        self._ladder.counts.answered(how.rung, how.taken_ms, len(group), late, how.slowdown)
        for request, row in zip(group, rows, strict=True):
            request.how, request.call = how, ((), {})  # inputs are not kept as long as answers
            request.set_result(row)

    def _refuse(self, requests: Sequence[Pending], reason: str) -> None:
        for request in requests:
            if self._takes(request):
                self._ladder.counts.refused(reason)
                request.set_exception(Refused(SENTENCES[reason], reason))

    def _forget(self, request: Pending) -> None:
        with self._wake:
            waited = self._scheduler.remove(request, request.deadline)
        if waited:
            self._ladder.counts.dropped()

    def _takes(self, request: Pending) -> bool:
        """False if its owner has canceled it since it left the queue."""
        if request.set_running_or_notify_cancel():
            return True
        self._ladder.counts.dropped()
        return False

    def _size(self, rung: int, count: int) -> int:
        return self._ladder.predictor.times.rungs[rung].run_size(count)


def check_limits(slo_ms: float, max_queue: int) -> None:
    """Raises UsageError for a stream without time or room."""
    if not 0.0 < slo_ms < math.inf or max_queue < 1:
        raise UsageError(
            f"`slo_ms` is {slo_ms} and `max_queue` is {max_queue}; both must be above 0."
        )
