"""The trials of a search as contenders: how much of the target each uses, and what it costs."""

from __future__ import annotations

from statistics import median

from .choice import Contender, Standing
from .search import Search
from .target import MARGIN
from .trials import Trial
from .within_limit import fastest_within

LOSSLESS = "lossless"
# A fresh process differs from this one by some percent. What differs by more was disturbed.
LARGEST_BIAS = 1.25


def contenders(search: Search) -> list[Contender[Trial]]:
    """Everything that the search knows; what nobody has judged on data is not among it."""
    rows = [t for t in search.trials if not t.failed and search.is_judged(t)]
    return [
        Contender(label_of(search, t), standing(search, t), t, content=_content(search, t))
        for t in rows
    ]


def _content(search: Search, trial: Trial) -> str:
    picks = sorted(search.space.settled(trial.picks).items())
    return f"{picks} {trial.number_format} {trial.runtime}"


def label_of(search: Search, trial: Trial) -> str:
    number = search.trials.index(trial)
    return f"tried {number}" if number else LOSSLESS


def standing(search: Search, trial: Trial) -> Standing:
    """Before training. The share leaves the margin by which two fresh processes differ."""
    share = share_of(search, trial) / MARGIN
    if trial is search.trials[0]:
        return Standing(share)
    if not search.lab.has_data:
        return Standing(share, distance=trial.loss)
    return Standing(share, search.drop(trial), search.distance(trial))


def share_of(search: Search, trial: Trial) -> float:
    """The part of the target that a trial uses: as a fresh process says, else as this one does
    with what they usually differ by."""
    if trial.share is not None:
        # A machine that has become quieter since makes the same ratio a smaller part of a time.
        quieter = trial.quiet_ms is not None and search.lab.target.ms is not None
        return trial.share * (search.lab.quiet_ms / (trial.quiet_ms or 1.0) if quieter else 1.0)
    return _bias(search) * share_here(search, trial)


def share_here(search: Search, trial: Trial) -> float:
    """The part of the target that a trial used when it was measured in this process."""
    return trial.latency.high_ms / search.budget_ms


def _bias(search: Search) -> float:
    """The usual ratio of the fresh process's share to this process's."""
    verified = [t for t in search.trials if t.share is not None and not t.failed]
    ratios = [share_of(search, t) / share_here(search, t) for t in verified]
    plausible = [r for r in ratios if 1.0 / LARGEST_BIAS <= r <= LARGEST_BIAS]
    return median(plausible) if plausible else 1.0


def judge_what_may_ship(search: Search) -> None:
    """Judge what would be chosen by its latency alone, even where the time is up.

    If nothing that is judged meets the target, the most promising trial that meets it is judged;
    if nothing meets it at all, what is nearest to the target within the accuracy limit.
    """
    if not search.lab.has_data or _meets_judged(search):
        return
    meeting = (t for t in search.trials if not t.failed and share_of(search, t) <= MARGIN)
    for trial in sorted(meeting, key=lambda t: t.loss):
        search.distance(trial)
        if not trial.failed:
            return
    if search.in_time():
        fastest_within(search, search.start - search.lab.recipe.limits.max_drop)
    else:
        search.distance(search.smallest())


def _meets_judged(search: Search) -> bool:
    return any(c.standing.share <= 1.0 for c in contenders(search))
