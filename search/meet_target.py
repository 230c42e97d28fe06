"""The last loop of a search: the written artifact, measured in a fresh process, is on target."""

from __future__ import annotations

from pathlib import Path

from ..core.records import Record
from ..graph.capture import clone
from ..tuning.candidates import build
from ..tuning.delivery import verify_written
from .search import Search
from .target import MARGIN, WINDOW, budget_ms, used
from .trials import Trial
from .variant import Variant

ROUNDS = 4
SECONDS = 5.0


def settle(search: Search, record: Record, out: Path) -> tuple[Trial, float]:
    """The trial to train and the smallest latency seen (ms).

    Its artifact meets the target in a fresh process with a margin and uses the most of it; it is
    the fastest where none does. What that process measures corrects the budget.
    """
    bench, target = search.bench, search.bench.job.target
    bench.talk.stage("searching")
    budget = budget_ms(target, bench.reference)
    if search.exact(budget) is None:
        search.say_feasible(search.smallest())
    shares: dict[int, float] = {}  # of the target, by the trial's place
    for _ in range(ROUNDS):
        found = search.solve(budget)
        if found is None or (at := search.trials.index(found)) in shares:
            break
        try:
            shares[at] = share = _verified(search, found, record, out)
        except Exception as error:  # another one may do; where none does, lossless work is left
            search.fail(found, error)
            continue
        enough = share <= MARGIN and (share >= WINDOW or not found.loss)
        if enough or not search.in_time():
            break
        # From what this one took, which may be well below what it was allowed.
        budget = found.latency.high_ms * 0.5 * (WINDOW + MARGIN) / share
    chosen = _best(search, shares)
    bench.runtime = bench.trusted(chosen.runtime)
    return chosen, min(t.latency.value_ms for t in search.trials)


def _best(search: Search, shares: dict[int, float]) -> Trial:
    """What uses most of the target with the margin kept; else what comes nearest to keeping it."""
    kept = [at for at, share in shares.items() if share <= MARGIN]
    if kept:
        return search.trials[max(kept, key=lambda at: shares[at])]
    met = [at for at, share in shares.items() if share <= 1.0]
    return search.trials[min(met, key=lambda at: shares[at])] if met else search.smallest()


def _verified(search: Search, found: Trial, record: Record, out: Path) -> float:
    """The part of the target that the written artifact uses in a fresh process."""
    bench = search.bench
    bench.runtime = bench.trusted(found.runtime)
    made = build(bench, search.chosen(found))
    trial = Variant(clone(made.module), made.edits)
    checked = verify_written(bench, out, trial, record, SECONDS, judged=False)
    share = used(bench.job.target, checked)
    bench.talk.note(f"a fresh process uses {100 * share:.1f} % of the target")
    return share
