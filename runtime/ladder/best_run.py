"""The run that brings the most together with the best way to work off the rest after it.

A pair of a run and a drain brings the accuracy of the run's answers in time, and that of the rest:
its worth, less what is lost where the tightest request behind the run ends late (docs/ladder.md).
Drains, batches and runs are passed over whose upper bounds are below what was found; the others are
computed in full, so that the choice is that of all pairs.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from itertools import accumulate

from .priced_runs import RunOption, RunOptions

HALF_CHANCE = 0.75  # of being in time, between the median and the limit of a run
# Plain tuples: classes would take a third of the time of a decision.
# Deadlines, now, slowdown, the first that can be in time, all that wait and are expected, and the
# places looked at with their slacks on the scale of the measured machine, the last one first.
QueueView = tuple[Sequence[float], float, float, int, float, Sequence[tuple[int, float]]]
Found = tuple[float, int, tuple[int, int, int]]  # value, order, and start, rung, batch
Way = tuple[float, int, bool, float]  # bound, place of a drain, if delayed, part of all its runs
Known = dict[int, tuple[int, float]]  # start and worth of own answers, by a run's order


def best_run(queue: QueueView, options: RunOptions, rounding: float) -> tuple[int, int, int]:
    """Start in the queue, rung and batch of the best run; of equals the first of `options`. Bounds
    count as equal within `rounding`."""
    best: Found = (-math.inf, 0, (queue[3], 0, 0))
    known: Known = {}
    for way in _in_order(queue, options):
        if way[0] < best[0] - rounding:
            break
        best, lost = _with_drain(queue, options, way, best, rounding, known)
        if way[1] == 0 and not lost and best[0] >= way[0] - rounding:
            break  # the drain that is worth the most, without a delay
    return best[2]


def _in_order(queue: QueueView, options: RunOptions) -> Iterator[Way]:
    """The highest bound first: no more than all of the rest comes in time, and if the last place
    that is looked at ends late, as much is lost at least."""
    _, _, _, first, total, seen = queue
    ahead, (last, slack) = total - first, seen[0]
    beyond = total - last
    ways: list[Way] = []
    for place, (worth, _, limit, loss, rest_most, delay_most) in enumerate(options.drains):
        rest, delayed = worth * ahead, worth * beyond + loss * (slack - limit)
        if rest + rest_most > delayed + delay_most:
            ways.append((delayed + delay_most, place, True, delayed))
        elif place:
            ways.append((rest + rest_most, place, False, rest))
        else:
            yield rest + rest_most, 0, False, rest  # mostly the only one
    ways.sort(reverse=True)
    yield from ways


def _with_drain(
    queue: QueueView, options: RunOptions, way: Way, found: Found, rounding: float, known: Known
) -> tuple[Found, bool]:
    """The best of `found` and the runs with this drain; True beside it if any delays the rest."""
    _, _, _, first, total, seen = queue
    _, place, delayed, shared = way
    worth, pace, limit, loss, _, _ = options.drains[place]
    # By place, from the last: the least slack from there on, less the time of all before it.
    tight = list(accumulate([slack - at * pace for at, slack in seen], min))
    (best, rank, chosen), last, lost = found, len(tight) - 1, False
    least = best - rounding
    for most, delay_most, batch, behind, runs in options.batches(place, delayed):
        if shared + most < least:
            break
        rest, gap = worth * (total - first - batch), -math.inf
        if behind <= last:  # `gap`: by which the rest ends late, beside the run's own time
            gap = limit - (first + batch) * pace - tight[last - behind]
            if rest - loss * gap + delay_most < least:
                continue
        for order, rung, run_limit, full, option in runs:
            delay = run_limit + gap
            if full + (rest - loss * delay if delay > 0.0 else rest) < least:
                continue
            start, value = known.get(order) or known.setdefault(order, _own_answers(queue, option))
            after = worth * (total - start - batch)
            if behind <= last:
                delay = run_limit + limit - (start + batch) * pace - tight[last - behind]
                if delay > 0.0:
                    after -= worth * delay / pace
                    lost = True
            value += after
            if value > best or (value == best and order < rank):
                best, rank, chosen = value, order, (start, rung, batch)
                least = value - rounding
    return (best, rank, chosen), lost


def _own_answers(queue: QueueView, option: RunOption) -> tuple[int, float]:
    """Start in the queue, and worth of the run's answers in time less the price of its time."""
    deadlines, now, slower, first, _, _ = queue
    latest = now + option.limit * slower
    if deadlines[first] >= latest:
        return first, option.full
    start = bisect_left(deadlines, now + option.median * slower, first)
    members = min(option.batch, len(deadlines) - start)
    if members < option.batch and start > first:
        return start, -math.inf  # a smaller run takes those
    late = bisect_left(deadlines, latest, start) - start
    return start, option.score * (members - (1 - HALF_CHANCE) * min(late, members)) - option.cost
