"""`Ladder`: rungs of one model, of which each call takes the most accurate that is fast enough."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NoReturn, SupportsIndex

import torch
from torch import Tensor, nn

from ...core.errors import TooLate, UsageError, text_line
from ...core.ladder_record import CascadeRecord
from ...core.model_io import Inputs, leaves
from .cascade import Cascade, cascade_of
from .counts import Counts, Stats
from .policy import LookAhead
from .predictor import CONFIDENCE, Predictor, check_confidence
from .prometheus import register
from .stream import Stream
from .times import RungTimes

if TYPE_CHECKING:
    from typing_extensions import Self

Clock = Callable[[], float]


def clock_ms() -> float:
    return time.perf_counter() * 1000.0


@dataclass(frozen=True)
class How:
    """The way an answer came about. `rung`: its place, 0 the top; times in ms.

    `predicted_ms` is the median that was expected; `slowdown` the factor believed when the rung was
    chosen; `late_expected`: no rung held the budget with the confidence asked for.
    """

    rung: int
    name: str
    predicted_ms: float
    taken_ms: float
    slowdown: float
    late_expected: bool


class Ladder(nn.Module):
    """A module that is called like each of its rungs, and takes a time budget beside the inputs.

    `rungs` are ready modules, `times` what was measured of each, in the same order. `example`: one
    input of each graph, for warming up. Calls may come from many threads.
    """

    def __init__(
        self,
        rungs: Sequence[nn.Module],
        times: Sequence[RungTimes],
        *,
        example: Inputs | None = None,
        cascades: Sequence[CascadeRecord] = (),
        clock: Clock = clock_ms,
    ) -> None:
        super().__init__()
        self.rungs = nn.ModuleList(rungs)
        self.predictor = Predictor(times)
        self.names = tuple(row.name for row in times)
        self._ready = tuple(rungs)
        self._example, self._cascades, self._clock = example, tuple(cascades), clock
        self._axes = example.batch_axes if example is not None else ()
        self.counts = Counts(self.names, clock)
        self._ended = clock()
        self._streams: list[Stream] = []
        super().train(False)

    def forward(
        self,
        *args: Any,
        budget_ms: float | None = None,
        confidence: float = CONFIDENCE,
        on_late: Literal["answer", "refuse"] = "answer",
        **kwargs: Any,
    ) -> Any:
        """The answer of the most accurate rung, or of the most accurate that answers within
        `budget_ms` with probability `confidence`. If none does, the fastest rung answers, or
        `on_late="refuse"` raises TooLate."""
        return self.answer(
            *args, budget_ms=budget_ms, confidence=confidence, on_late=on_late, **kwargs
        )[0]

    def answer(
        self,
        *args: Any,
        budget_ms: float | None = None,
        confidence: float = CONFIDENCE,
        on_late: Literal["answer", "refuse"] = "answer",
        **kwargs: Any,
    ) -> tuple[Any, How]:
        """The answer, and how it came about."""
        began, batch = self._clock(), self._batch(args, kwargs)
        rung, fits = self.predictor.best, True
        if budget_ms is not None:
            _check(confidence, on_late)
            rung, fits = self.predictor.choose(budget_ms, batch, confidence)
            if not fits and on_late == "refuse":
                self.predictor.rest(self._clock())
                rung, fits = self.predictor.choose(budget_ms, batch, confidence)
            if not fits and on_late == "refuse":
                self.counts.refused("late")
                raise TooLate(self._too_late(rung, batch, budget_ms))
        outputs, how = self.run(rung, batch, args, kwargs, fits=fits)
        late = budget_ms is not None and self._clock() - began > budget_ms
        self.counts.answered(rung, how.taken_ms, batch, batch * late, how.slowdown)
        return outputs, how

    def run(
        self,
        rung: int,
        batch: int,
        args: Sequence[Any],
        kwargs: dict[str, Any],
        *,
        fits: bool = True,
    ) -> tuple[Any, How]:
        """The answer of one rung; what it took is learned. For streams and cascades, which count
        their answers themselves."""
        predictor = self.predictor
        predicted, slowdown = predictor.expected_ms(rung, batch), predictor.slowdown.factor
        start = self._clock()
        idle_s = (start - self._ended) / 1000.0
        outputs = self._ready[rung](*args, **kwargs)
        _wait_for(outputs)
        end = self._ended = self._clock()
        predictor.observe(rung, batch, end - start, idle_s, end)
        return outputs, How(rung, self.names[rung], predicted, end - start, slowdown, not fits)

    def stream(
        self,
        slo_ms: float,
        *,
        max_queue: int = 1024,
        confidence: float = CONFIDENCE,
    ) -> Stream:
        """A queue in order of deadlines before this ladder; use it in a `with` block.

        `slo_ms`: the time within which each request is to be answered, if it does not bring its
        own. `max_queue`: requests that may wait; more are refused.
        """
        check_confidence(confidence)
        self._check_rows("a stream puts requests together")
        self.warm_up()
        stream = Stream(
            self, LookAhead(self.predictor, slo_ms, confidence), slo_ms=slo_ms,
            max_queue=max_queue, clock=self._clock, confidence=confidence,
            on_close=self._streams.remove,
        )  # fmt: skip
        self._streams.append(stream)
        return stream

    def cascade(
        self, low: int | None = None, high: int | None = None, threshold: float | None = None
    ) -> Cascade:
        """Answers of a low rung, given by a high one where the low one is unsure.

        Without arguments as calibrated in `ladder.json`. Raises UsageError where that has none.
        """
        self._check_rows("a cascade picks examples out")
        return cascade_of(self, self._cascades, low, high, threshold)

    @property
    def example(self) -> Inputs | None:
        """An input of each graph; None where the ladder was made without."""
        return self._example

    def clock_ms(self) -> float:
        """The time that budgets and deadlines go by."""
        return self._clock()

    def stats(self) -> Stats:
        """Counts since the ladder was loaded, and what is believed of the machine."""
        slowdown = self.predictor.slowdown
        queue = sum(len(stream) for stream in self._streams)
        return self.counts.stats(queue, slowdown.factor, slowdown.spread)

    def publish(self, registry: Any = None) -> None:
        """Show `stats()` as Prometheus metrics, in `registry` or in that of `prometheus_client`.

        Raises MissingExtra where `prometheus_client` is not installed.
        """
        register(self.stats, registry)

    def warm_up(self) -> None:
        """Call each rung once at each measured batch size: some runtimes compile for each."""
        if self._example is None:
            return
        for rung, row in enumerate(self.predictor.times.rungs):
            for size in row.sizes:
                inputs = self._example.rows(lambda x, axis, n=size: _rows(x, axis, n))  # type: ignore[misc]
                try:
                    with torch.no_grad():
                        _wait_for(inputs.call(self._ready[rung]))
                except Exception as error:
                    raise UsageError(
                        f"rung `{row.name}` does not run at batch {size}, of which the ladder has "
                        f"a latency: {text_line(error)}."
                    ) from error

    def train(self, mode: bool = True) -> Self:
        if mode:
            raise UsageError("a ladder is for inference and can't be trained.")
        return super().train(False)

    def __reduce_ex__(self, _protocol: SupportsIndex) -> NoReturn:
        raise UsageError(
            "a ladder can't be copied or pickled; call `modelspeed.load` in each process."
        )

    def extra_repr(self) -> str:
        return ", ".join(self.names)

    def _batch(self, args: Sequence[Any], kwargs: dict[str, Any]) -> int:
        if not self._axes or self._example is None:
            return batch_size(args, kwargs)
        given = Inputs(tuple(args), kwargs).like(self._example)
        return max(1, given.batch) if given.batch_axes else batch_size(args, kwargs)

    def _check_rows(self, what: str) -> None:
        """Raises UsageError where examples do not lie along the first axis of every input."""
        if not self._axes or self._example is None:
            return
        rows = zip(self._example.labels, self._axes, strict=True)
        other = [(name, axis) for name, axis in rows if axis != 0]
        if other:
            name, axis = other[0]
            where = "has no batch" if axis is None else f"has its batch in axis {axis}"
            raise UsageError(
                f"{what} along the first axis of every input, and `{name}` {where}; call the "
                "ladder with whole batches."
            )

    def _too_late(self, rung: int, batch: int, budget_ms: float) -> str:
        expected = self.predictor.expected_ms(rung, batch)
        return (
            f"no rung answers within `budget_ms={budget_ms:g}` now; the fastest, "
            f"`{self.names[rung]}`, takes about {expected:.3g} ms."
        )


def batch_size(args: Sequence[Any], kwargs: dict[str, Any]) -> int:
    """Rows of the first tensor that has any."""
    for value in (*args, *kwargs.values()):
        if isinstance(value, Tensor) and value.dim():
            return max(1, value.shape[0])
    return 1


def _check(confidence: float, on_late: str) -> None:
    check_confidence(confidence)
    if on_late not in ("answer", "refuse"):
        raise UsageError(f"`on_late` is `{on_late}`; it must be `answer` or `refuse`.")


def _rows(x: Tensor, axis: int, count: int) -> Tensor:
    sizes = [count if place == axis else n for place, n in enumerate(x.shape)]
    return x.narrow(axis, 0, 1).expand(sizes).contiguous()


def _wait_for(outputs: Any) -> None:
    """Until a GPU has done what it was given."""
    if isinstance(outputs, Tensor):
        if outputs.is_cuda:
            torch.cuda.synchronize(outputs.device)
        return
    tensor = next(iter(leaves(outputs)), None)
    if tensor is not None and tensor.is_cuda:
        torch.cuda.synchronize(tensor.device)
