"""The loop of a search around fresh processes: what they measure corrects the budget."""

from __future__ import annotations

from dataclasses import replace

from ..graph.capture import clone
from .contenders import LARGEST_BIAS, judge_what_may_ship, share_here
from .search import Search
from .target import MARGIN, WINDOW, share_of_target
from .trials import Trial

ROUNDS = 4
CHANGED = 1.03  # times the budget: worth another search


def meet_target(search: Search) -> None:
    """Verify trials until one uses the target well.

    Everything that it learns stays with the trials, for `choice.finish_best`. Where the machine
    turns out to be faster than it was, less has to be given up: then it searches again.
    """
    search.lab.progress.stage("searching")
    if search.exact(search.budget_ms) is None:
        search.say_feasible(search.smallest())
    while True:
        budget = search.budget_ms
        _verify_rounds(search)
        judge_what_may_ship(search)
        if search.budget_ms <= CHANGED * budget or not search.in_time():
            break
    search.explored_ms = search.budget_ms


def explore(search: Search) -> None:
    """`meet_target`, where it was not done yet for what is known of the machine by now."""
    if search.explored_ms is None or (
        search.in_time() and search.budget_ms > CHANGED * search.explored_ms
    ):
        meet_target(search)


def _verify_rounds(search: Search) -> None:
    correction, disturbed, seen = 1.0, False, list[Trial]()
    for _ in range(ROUNDS):
        trial = search.solve(correction * search.budget_ms)
        if trial is None or trial in seen:
            return
        seen.append(trial)
        try:
            share = trial.share if disturbed or trial.share else _verified(search, trial)
        except Exception as error:  # another one may do; where none does, lossless work is left
            search.fail(trial, error)
            continue
        if share is None:  # then this process's own measurements are all there is
            disturbed, share = True, share_here(search, trial)
        enough = share <= MARGIN and (share >= WINDOW or not trial.loss)
        if enough or not search.in_time():
            return
        # From what this one took, which may be well below what it was allowed.
        correction = share_here(search, trial) * 0.5 * (WINDOW + MARGIN) / share


def _verified(search: Search, trial: Trial) -> float | None:
    """The part of the target that the staged artifact uses in a fresh process.

    None where the machine was disturbed, which says nothing about the trial. What is far from the
    measurements of this process is measured again before it is believed.
    """
    lab = search.lab
    variant = lab.build(search.decision(trial)).under(trial.runtime)
    # Weights of the graph that is exported are shared by nothing that still changes.
    variant = replace(variant, module=clone(variant.module))
    shares: list[tuple[float, float]] = []
    while len(shares) < 2:
        checked = lab.verify(variant)
        share = share_of_target(lab.target, checked)
        lab.progress.note(
            f"a fresh process uses {100 * share:.1f} % of the target"
            + (", while the machine was disturbed" if checked.disturbed else "")
        )
        if checked.disturbed:
            return None
        shares.append((share, checked.reference_ms))
        if share <= LARGEST_BIAS * share_here(search, trial) or not lab.in_time():
            break
    trial.share, trial.quiet_ms = min(shares)
    lab.write_down("trial", trial)
    return trial.share
