"""The last loop of a search: the written artifact, measured in a fresh process, is on target."""

from __future__ import annotations

from pathlib import Path

from ..core.records import Record
from ..graph.capture import clone
from .building import build
from .goal import MARGIN, WINDOW, budget_ms, used
from .results import verify_written
from .search import Search
from .trials import Trial
from .variant import Variant

ROUNDS = 4
SECONDS = 5.0


def settle(search: Search, record: Record, out: Path, recipe: str) -> tuple[Trial, float]:
    """The trial to train and the smallest latency seen (ms).

    Its artifact meets the target in a fresh process with a margin and uses the most of it; it is
    the fastest where none does. What that process measures corrects the budget.
    """
    bench, target = search.bench, search.bench.job.target
    bench.talk.stage("searching")
    budget = budget_ms(target, bench.reference)
    exact = search.exact(budget)
    fallback = exact or search.smallest()
    if exact is None:
        search.say_feasible(fallback)
    best: tuple[float, Trial] | None = None
    last: Trial | None = None
    for _ in range(ROUNDS):
        found = search.solve(budget)
        if found is None or found is last:
            break
        last, share = found, _verified(search, found, record, out, recipe)
        if share <= MARGIN and (best is None or share > best[0]):
            best = share, found
        enough = share <= MARGIN and (share >= WINDOW or not found.loss)
        if enough or not search.in_time():
            break
        budget *= 0.5 * (WINDOW + MARGIN) / share
    chosen = fallback if best is None else best[1]
    bench.runtime = chosen.runtime
    return chosen, min(t.latency.value_ms for t in search.trials)


def _verified(search: Search, found: Trial, record: Record, out: Path, recipe: str) -> float:
    """The part of the target that the written artifact uses in a fresh process."""
    bench = search.bench
    bench.runtime = found.runtime
    made = build(bench, search.chosen(found.picks, found.form))
    trial = Variant(clone(made.module), made.edits)
    checked = verify_written(bench, out, trial, record, recipe, SECONDS)
    share = used(bench.job.target, checked)
    bench.talk.note(f"a fresh process uses {100 * share:.1f} % of the target")
    return share
