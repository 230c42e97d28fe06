"""The last loop of a search: the staged artifact, measured in a fresh process, is on target."""

from __future__ import annotations

from dataclasses import replace

from ..graph.capture import clone
from .search import Search
from .target import MARGIN, WINDOW, budget_ms, share_of_target
from .trials import Trial

ROUNDS = 4


def meet_target(search: Search) -> tuple[Trial, float]:
    """The trial to train and the smallest latency seen (ms).

    Its artifact meets the target in a fresh process with a margin and uses the most of it; it is
    the fastest where none does. What that process measures corrects the budget.
    """
    lab = search.lab
    lab.progress.stage("searching")
    budget = budget_ms(lab.target, lab.reference)
    if search.exact(budget) is None:
        search.say_feasible(search.smallest())
    shares: dict[int, float] = {}  # of the target, by the trial's place
    for _ in range(ROUNDS):
        trial = search.solve(budget)
        if trial is None or (at := search.trials.index(trial)) in shares:
            break
        try:
            shares[at] = share = _verified(search, trial)
        except Exception as error:  # another one may do; where none does, lossless work is left
            search.fail(trial, error)
            continue
        enough = share <= MARGIN and (share >= WINDOW or not trial.loss)
        if enough or not search.in_time():
            break
        # From what this one took, which may be well below what it was allowed.
        budget = trial.latency.high_ms * 0.5 * (WINDOW + MARGIN) / share
    return _best(search, shares), min(t.latency.value_ms for t in search.trials)


def _best(search: Search, shares: dict[int, float]) -> Trial:
    """The trial that uses most of the target within the margin; else the nearest to the margin."""
    kept = [at for at, share in shares.items() if share <= MARGIN]
    if kept:
        return search.trials[max(kept, key=lambda at: shares[at])]
    met = [at for at, share in shares.items() if share <= 1.0]
    return search.trials[min(met, key=lambda at: shares[at])] if met else search.smallest()


def _verified(search: Search, trial: Trial) -> float:
    """The part of the target that the staged artifact uses in a fresh process."""
    lab = search.lab
    variant = lab.build(search.decision(trial)).under(trial.runtime)
    # Weights of the graph that is exported are shared by nothing that still changes.
    checked = lab.verify(replace(variant, module=clone(variant.module)))
    share = share_of_target(lab.target, checked)
    lab.progress.note(f"a fresh process uses {100 * share:.1f} % of the target")
    return share
