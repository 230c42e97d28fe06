"""The choice of what ships: one order over everything that is known, at every end of a run.

`w* = argmax P(w) s.t. S(w) >= T`. Where the target and the accuracy limit can't both be had, one of
them stands, and what is nearest to the other is taken.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass, replace
from typing import Generic, Protocol, TypeVar

from ..configs.recipe import Prefer
from ..core.errors import ArtifactError, UsageError

ATTEMPTS = 3  # variants that are trained and verified, at most
EPSILON = 1e-9
BROKEN, UNUSABLE = 1, 9  # classes: meets the target beyond the limit; can't ship
T = TypeVar("T")


@dataclass(frozen=True)
class Standing:
    """A variant as far as it is known.

    `share`: the part of the target that it uses; at most 1 meets it. `drop`: of the metric, 0 where
    no data can tell. `distance`: from the original, which tells variants of equal drop apart.
    `usable`: False for one that measured slower than the original.
    """

    share: float
    drop: float = 0.0
    distance: float = 0.0
    usable: bool = True


@dataclass(frozen=True)
class Preference:
    """The wishes of a run. `fastest`: the least latency within `max_drop`, no target."""

    max_drop: float
    prefer: Prefer = "target"
    fastest: bool = False

    def of(self, standing: Standing) -> int:
        """The class of a variant; a lower one is better than any of a higher one."""
        meets, within = standing.share <= 1.0, standing.drop <= self.max_drop + EPSILON
        if not standing.usable or not (within or self._gives_way):
            return UNUSABLE
        if within:
            return 0 if meets or self.fastest else 2
        return BROKEN if meets else 3

    @property
    def _gives_way(self) -> bool:
        """True if more accuracy than `max_drop` may be lost; what loses none is always there."""
        return self.prefer == "target" and not self.fastest

    def key(self, standing: Standing) -> tuple[float, ...]:
        """The whole order: among those that meet the target the most accurate, then the fastest;
        of all others the nearest to the target."""
        kind, share, distance = self.of(standing), standing.share, standing.distance
        if kind == UNUSABLE:
            return (kind, not standing.usable, distance, share)
        accuracy_first = standing.share <= 1.0 and not self.fastest
        return (kind, distance, share) if accuracy_first else (kind, share, distance)


@dataclass(frozen=True)
class Contender(Generic[T]):
    """Something that could ship, once it is finished: trained, written and verified.

    `exact`: it computes what the original does, so its accuracy is known. `known`: it was measured.
    `content` tells it from others of the same label in another run.
    """

    label: str
    standing: Standing
    source: T
    exact: bool = False
    known: bool = True
    content: str = ""


class Result(Protocol):
    """A finished contender, with what the fresh process and the evaluation data say of it."""

    @property
    def standing(self) -> Standing: ...


F = TypeVar("F", bound=Result)


def finish_best(
    contenders: Callable[[], Sequence[Contender[T]]],
    finish: Callable[[Contender[T]], F],
    preference: Preference,
    time_for_another: Callable[[], bool],
) -> F:
    """Finish the best contender, and others where they promise more than it turned out to be.

    `contenders` is asked again after each, since what was measured counts for the rest. One that
    fails is passed over. Where there is no time for another one, exact ones still have their turn:
    nobody has to train them. Raises what the first one met where all fail.
    """
    finished: dict[str, F] = {}
    errors: list[Exception] = []
    begun: set[str] = set()
    while True:
        best = min(finished, key=lambda n: preference.key(finished[n].standing), default=None)
        more = not begun or (len(begun) < ATTEMPTS and time_for_another())
        known = contenders()
        following = _following(known, begun, preference, exact=not more)
        if following is None:
            break
        if best and not _promises(following, finished[best].standing, known, best, preference):
            break
        begun.add(following.label)
        try:
            finished[following.label] = finish(following)
        except (UsageError, ArtifactError):
            raise  # the user's to set right, whatever the variant
        except Exception as error:
            errors.append(error)
    if best is None:
        raise errors[0]
    return finished[best]


def _promises(
    following: Contender[T],
    finished: Standing,
    known: Sequence[Contender[T]],
    label: str,
    preference: Preference,
) -> bool:
    """True if a contender may be better than the best that is `finished`, which has this label.

    Of the same class it is if it had been chosen instead by what is known now: training and the
    evaluation data change accuracies, so those before it are compared. Where the limit is broken,
    one that loses less even without training is worth its time.
    """
    if following.exact:  # nothing about it changes, so it is compared as it is
        return preference.key(following.standing) < preference.key(finished)
    kind, promised = preference.of(finished), preference.of(following.standing)
    if promised != kind or kind == UNUSABLE:
        return promised < kind
    if kind == BROKEN and following.standing.drop < finished.drop:
        return True
    before = next((c.standing for c in known if c.label == label), None)
    return before is not None and preference.key(following.standing) < preference.key(before)


def _following(
    contenders: Sequence[Contender[T]], begun: Set[str], preference: Preference, exact: bool
) -> Contender[T] | None:
    """The best contender that was not begun yet, only of exact ones if so asked.

    What training wins back is not known before it, so the first one is what the target asks for.
    """
    if not begun:
        preference = replace(preference, prefer="target")
    left = [c for c in contenders if c.label not in begun and (c.exact or not exact)]
    return min(left, key=lambda c: preference.key(c.standing), default=None)
