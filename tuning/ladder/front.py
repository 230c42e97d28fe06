"""The rungs that are worth having: each faster than the one above, and less accurate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

LEAST_GAIN = 0.05  # of the time of the rung above


@dataclass(frozen=True)
class RungPoint:
    """A rung's measured time at the batch that it was tuned for, and its worth."""

    name: str
    ms: float
    score: float


def front_of(points: Sequence[RungPoint]) -> tuple[list[int], dict[int, str]]:
    """Places of those that stay, from the top down, and the reasons that others do not.

    The top, which is first, always stays. One that costs no accuracy replaces the one above; one
    that gains less than 5 % of the time is dropped.
    """
    kept, reasons = [0], dict[int, str]()
    for place in sorted(range(1, len(points)), key=lambda i: -points[i].ms):
        this = points[place]
        while len(kept) > 1 and this.score >= points[kept[-1]].score:
            above = points[kept[-1]]
            if this.ms > above.ms:
                break
            reasons[kept.pop()] = f"`{this.name}` is faster and loses no accuracy against it"
        above = points[kept[-1]]
        gain = 1.0 - this.ms / above.ms
        if gain < LEAST_GAIN:
            reasons[place] = (
                f"it takes {this.ms:.3g} ms, {abs(gain):.1%} {'less' if gain >= 0 else 'more'} "
                f"than `{above.name}`; a rung must gain {LEAST_GAIN:.0%}"
            )
        else:
            kept.append(place)
    return kept, reasons
