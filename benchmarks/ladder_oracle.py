"""The best that could be done with the same rungs by who knows arrivals and speeds beforehand."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

from modelspeed.runtime.ladder.times import Times

CELLS = 200  # of the SLO: states nearer to each other than that are one
State = tuple[float, float, tuple[int, int, int] | None]  # free from, worth, how it came about


def oracle_plan(
    times: Times,
    arrivals: Sequence[float],
    slo_ms: float,
    slowdown_at: Callable[[float], float],
) -> list[int | None]:
    """The rung that answers each request, None where none does, by dynamic programming over
    (requests dealt with, time at which the machine is free).

    Runs take their median times the slowdown when they begin. With one SLO for all, the order of
    deadlines is that of arrivals; a batch of which one is late is never better than one without it.
    """
    runs = _runs(times)
    count, grid = len(arrivals), slo_ms / CELLS
    states: list[dict[int, tuple[float, float, tuple[int, int, int, int] | None]]] = [
        {} for _ in range(count + 1)
    ]
    states[0][0] = (0.0, 0.0, None)

    def offer(place: int, free: float, worth: float, way: tuple[int, int, int, int]) -> None:
        # Whoever is free before the next request arrives is as well off as any other such one.
        key = int(max(free, arrivals[place] if place < count else 0.0) / grid)
        known = states[place].get(key)
        if known is None or worth > known[1] or (worth == known[1] and free < known[0]):
            states[place][key] = (free, worth, way)

    for first in range(count):
        deadline = arrivals[first] + slo_ms
        for key, (free, worth, _) in _undominated(states[first]):
            offer(first + 1, free, worth, (first, key, -1, 1))
            for rung, size, median, score in runs:
                if first + size > count:
                    continue
                start = max(free, arrivals[first + size - 1])
                end = start + median * slowdown_at(start)
                if end <= deadline:
                    offer(first + size, end, worth + size * score, (first, key, rung, size))
    return _path(states, count)


def _runs(times: Times) -> list[tuple[int, int, float, float]]:
    """(rung, batch, median, score) of all that are worth a look."""
    rows = []
    for rung, row in enumerate(times.rungs):
        sizes = {*row.sizes, *((a + b) // 2 for a, b in pairwise(row.sizes))}
        rows += [(rung, size, times.median_ms(rung, size), row.score) for size in sorted(sizes)]
    return [
        row
        for row in rows
        if not any(
            other[1] == row[1] and other[2] <= row[2] and other[3] > row[3] for other in rows
        )
    ]


def _undominated(states: dict[int, State]) -> list[tuple[int, State]]:
    best, kept = -1.0, []
    for key in sorted(states):
        if states[key][1] > best:
            best = states[key][1]
            kept.append((key, states[key]))
    return kept


def _path(states: Sequence[dict[int, State]], count: int) -> list[int | None]:
    rungs: list[int | None] = [None] * count
    place = count
    way = max(states[count].values(), key=lambda state: state[1])[2]
    while way is not None:
        first, key, rung, size = way
        if rung >= 0:
            rungs[first : first + size] = [rung] * size
        place = first
        way = states[place][key][2]
    return rungs
