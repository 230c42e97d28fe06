"""Targets in the search's own unit: ms on the scale of one reference run."""

from __future__ import annotations

from ..core.records import Comparison, Latency, Record, Target, Verification

# The upper end of the interval is wanted in this part of the target.
WINDOW = 0.95
# What the fresh process must leave free, since two runs of it differ by more than one's interval.
MARGIN = 0.985


def is_set(target: Target) -> bool:
    return target.ms is not None or target.speedup is not None


def budget_ms(target: Target, reference: Latency, quiet_ms: float) -> float:
    """The latency to search for, on the scale on which the original takes `reference`; all of that
    where no target is set.

    `quiet_ms`: what the original takes in the quietest phase that is known, to which a target in
    ms refers. A reference that was measured in a slow phase makes no budget tighter.
    """
    if target.speedup is not None:
        return reference.value_ms / target.speedup
    return reference.value_ms * (1.0 if target.ms is None else target.ms / quiet_ms)


def feasibility(
    target: Target,
    reference: Latency,
    quiet_ms: float,
    lossless: Latency,
    smallest: Latency | None = None,
) -> str:
    """One line before the long work; `smallest` is the narrowest variant, once it was measured."""
    goal, scale = "none", quiet_ms / reference.value_ms
    if is_set(target):
        goal = f"{scale * budget_ms(target, reference, quiet_ms):.3g} ms"
    elif target.fastest:
        goal = "as fast as the accuracy limit allows"
    text = f"baseline {quiet_ms:.3g} ms, lossless {scale * lossless.value_ms:.3g} ms, "
    if smallest is None:
        return f"{text}target {goal}"
    return f"{text}smallest reachable about {scale * smallest.value_ms:.3g} ms, target {goal}"


def share_of_target(target: Target, checked: Verification) -> float:
    """The part of the target that a verified artifact uses; at most 1 meets it."""
    return share_used(target, checked.judged, checked.comparison)


def share_used(target: Target, judged: Latency, ratio: Comparison) -> float:
    """The same by the interval's worse end of a latency, or of a ratio to the original."""
    if target.speedup is not None:
        return target.speedup / ratio.low
    assert target.ms is not None
    return judged.high_ms / target.ms


def original_share(target: Target, checked: Verification) -> float:
    """The part of the target that the user's own model uses."""
    if target.speedup is not None:
        return target.speedup
    assert target.ms is not None
    return checked.reference_ms / target.ms


def summary(record: Record, smallest_ms: float) -> str:
    """One sentence that says how the verified result lies to the target."""
    target, final, speedup = record.target, record.judged, record.speedup
    assert final is not None and speedup is not None
    if target.speedup is not None:
        got, goal = f"{speedup.speedup:.2f}x as fast", f"{target.speedup:g}x"
        gap = f"{target.speedup - speedup.low:.2f}x"
    else:
        got, goal = f"{final.value_ms:.3g} ms", f"{target.ms:.3g} ms"
        gap = f"{final.high_ms - (target.ms or 0.0):.3g} ms"
    if record.verdict == "met":
        return f"{got} meets the target of {goal}"
    if record.verdict == "missed":
        return (
            f"the target of {goal} is missed by {gap}; the smallest latency reachable with this "
            f"recipe is about {min(smallest_ms, final.value_ms):.3g} ms"
        )
    return f"{got} can't be told from the target of {goal} on this machine"
