"""The loop of a search around fresh processes: what they measure corrects the budget."""

from __future__ import annotations

from dataclasses import replace

from ..graph.capture import clone
from .contenders import LARGEST_BIAS, judge_what_may_ship, share_here
from .search import Search
from .target import MARGIN, WINDOW, share_of_target
from .trials import Trial

ROUNDS = 4


def meet_target(search: Search) -> None:
    """Verify trials until one uses the target well.

    Everything that it learns stays with the trials, for `choice.finish_best`.
    """
    search.lab.progress.stage("searching")
    if search.exact(search.budget_ms) is None:
        search.say_feasible(search.smallest())
    share, correction = None, 1.0
    for _ in range(ROUNDS):
        trial = search.solve(correction * search.budget_ms)
        if trial is None or trial.share is not None:
            break
        try:
            share = _verified(search, trial)
        except Exception as error:  # another one may do; where none does, lossless work is left
            search.fail(trial, error)
            continue
        enough = share is not None and share <= MARGIN and (share >= WINDOW or not trial.loss)
        if enough or not search.in_time():
            break
        if share is not None:
            # From what this one took, which may be well below what it was allowed.
            correction = share_here(search, trial) * 0.5 * (WINDOW + MARGIN) / share
    judge_what_may_ship(search)


def _verified(search: Search, trial: Trial) -> float | None:
    """The part of the target that the staged artifact uses in a fresh process.

    None where the machine was disturbed, which says nothing about the trial. What is far from the
    measurements of this process is measured again before it is believed.
    """
    lab = search.lab
    variant = lab.build(search.decision(trial)).under(trial.runtime)
    # Weights of the graph that is exported are shared by nothing that still changes.
    variant = replace(variant, module=clone(variant.module))
    shares: list[tuple[bool, float]] = []
    while len(shares) < 2:
        checked = lab.verify(variant)
        share = share_of_target(lab.target, checked)
        lab.progress.note(
            f"a fresh process uses {100 * share:.1f} % of the target"
            + (", while the machine was disturbed" if checked.disturbed else "")
        )
        shares.append((checked.disturbed, share))
        if not checked.disturbed and share <= LARGEST_BIAS * share_here(search, trial):
            break
        if not lab.in_time():
            break
    disturbed, share = min(shares)
    if disturbed:
        return None
    trial.share = share
    lab.write_down("trial", trial)
    return share
