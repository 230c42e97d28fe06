"""Runs and drains at one price of time, in the order in which a decision looks at them.

A decision seeks the pair of a run and a drain, the way in which the rest is worked off after it,
that brings the most. Bounds of what a pair can bring which do not depend on the queue are sorted
here once; a decision adds what the queue says, and passes over nearly all pairs.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from itertools import groupby
from typing import NamedTuple

from .runs import Run, RunTable

MAX_STEPS = 64  # places beyond the largest batch, each half as far again: more than any queue has


class Drain(NamedTuple):
    """`worth`: of a request that is worked off so, less the price of its time; `loss`: of worth, by
    each ms that the last one is late. `rest_most`: the most that a run brings beyond as many
    requests at this worth; `delay_most`: beyond what the rest loses by waiting for it."""

    worth: float
    pace: float
    limit: float
    loss: float
    rest_most: float = 0.0
    delay_most: float = 0.0


class RunOption(NamedTuple):
    """A run. `full`: its worth where all are in time, less its `cost`, the price of its time;
    `behind`: the first of the places looked at that it does not serve. Of equals that with the
    lowest `order` is taken."""

    order: int
    batch: int
    rung: int
    median: float
    limit: float
    score: float
    cost: float
    full: float
    behind: int


NOTHING = Drain(0.0, 1.0, 0.0, 0.0)  # the rest is given up


class Batch(NamedTuple):
    """Runs of one batch size beside one drain, with bounds as those of a drain; by `most` batches
    are sorted. `runs`: order, rung, limit and full worth of each, and it."""

    most: float
    delay_most: float
    batch: int
    behind: int
    runs: tuple[tuple[int, int, float, float, RunOption], ...]


class RunOptions:
    """Runs while as many wait as they were made for. `drains`: the most worth first."""

    def __init__(self, options: Sequence[RunOption], drains: Sequence[Drain]) -> None:
        self._groups = [tuple(group) for _, group in groupby(options, lambda o: o.batch)]
        self.drains = tuple(
            drain._replace(
                rest_most=_rest_most(drain, options), delay_most=_delay_most(drain, options)
            )
            for drain in drains
        )
        self._batches: dict[tuple[int, bool], Sequence[Batch]] = {}

    def batches(self, place: int, delayed: bool) -> Sequence[Batch]:
        """By size, that with the largest `delay_most` or `rest_most` first."""
        found = self._batches.get((place, delayed))
        if found is None:
            rows = [_batch(self.drains[place], group, delayed) for group in self._groups]
            found = self._batches[place, delayed] = sorted(rows, key=lambda row: -row.most)
        return found


class PricedRuns:
    """All runs and drains of `table` where a ms is worth `price`."""

    def __init__(self, table: RunTable, cell: int, price: float) -> None:
        self._table, self._cell, self._price = table, cell, price
        drains = [
            Drain(worth, run.pace, run.limit, worth / run.pace)
            for run in table.drains(cell)
            if (worth := run.score - price * run.pace) > 0.0
        ]
        self._drains = (*sorted(drains, reverse=True), NOTHING)
        self._places = places_looked_at(table.sizes)
        self._options: dict[int, RunOptions] = {}

    def places(self, waiting: int) -> list[int]:
        """Places of a queue at which it is looked at."""
        places = self._places[: bisect_left(self._places, waiting)]
        if places[-1] != waiting - 1:
            places.append(waiting - 1)
        return places

    def options(self, waiting: int) -> RunOptions:
        """Batches worth a look: measured sizes, and all that wait if that is fewer."""
        largest = self._table.sizes[-1]
        key = min(waiting, largest + 1)  # with more than the largest batch all are the same
        found = self._options.get(key)
        if found is None:
            found = self._options[key] = RunOptions(self._runs(key), self._drains)
        return found

    def _runs(self, waiting: int) -> list[RunOption]:
        table, price = self._table, self._price
        counts = [size for size in table.sizes if size < waiting]
        if waiting <= table.sizes[-1]:
            counts.append(waiting)
        places = self.places(waiting)
        runs = [run for count in counts for run in table.at(count, self._cell)]
        return [_option(order, run, price, places) for order, run in enumerate(runs)]


def _option(order: int, run: Run, price: float, places: Sequence[int]) -> RunOption:
    cost = price * run.median
    return RunOption(
        order, run.batch, run.rung, run.median, run.limit, run.score, cost,
        run.score * run.batch - cost, bisect_left(places, run.batch),
    )  # fmt: skip


def places_looked_at(sizes: Sequence[int]) -> list[int]:
    """Where batches end, and ever fewer beyond."""
    places = {0, *(size + side for size in sizes for side in (-1, 0))}
    step = sizes[-1]
    for _ in range(MAX_STEPS):
        step += max(1, step // 2)
        places.add(step)
    return sorted(places)


def _batch(drain: Drain, options: Sequence[RunOption], delayed: bool) -> Batch:
    delay = _delay_most(drain, options)
    most = delay if delayed else _rest_most(drain, options)
    runs = tuple((o.order, o.rung, o.limit, o.full, o) for o in options)
    first = options[0]
    return Batch(most, delay, first.batch, first.behind, runs)


def _rest_most(drain: Drain, options: Sequence[RunOption]) -> float:
    return max(option.full - drain.worth * option.batch for option in options)


def _delay_most(drain: Drain, options: Sequence[RunOption]) -> float:
    return max(option.full - drain.loss * option.limit for option in options)
