"""What ships: one order over everything that is known."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from modelspeed.core.errors import ArtifactError, UsageError
from modelspeed.search.choice import ATTEMPTS, Contender, Preference, Standing, finish_best

LIMIT = 0.01
TARGET, ACCURACY = Preference(LIMIT), Preference(LIMIT, "accuracy")
FASTEST = Preference(LIMIT, fastest=True)


@dataclass(frozen=True)
class Done:
    label: str
    standing: Standing


def contender(label, share, drop=0.0, distance=None, exact=False):
    distance = drop if distance is None else distance
    return Contender(label, Standing(share, drop, distance), label, exact)


LOSSLESS = contender("lossless", 1.5, exact=True)


def shipped(rows, preference=TARGET, truth=None, more=lambda: True):
    """The label that ships, and those that were finished; `truth`: what they turn out to be."""
    begun, truth = [], truth or {}

    def finish(one):
        begun.append(one.label)
        found = truth.get(one.label, one.standing)
        if isinstance(found, Exception):
            raise found
        return Done(one.label, found)

    return finish_best(lambda: rows, finish, preference, more).label, begun


def best(rows, preference):
    return min(rows, key=lambda c: preference.key(c.standing)).label


@pytest.mark.parametrize(
    ("rows", "label"),
    [
        # Both hold: the most accurate, not the fastest.
        ([("a", 0.5, 0.008), ("b", 0.9, 0.002), ("c", 0.2, 0.12)], "b"),
        # Of equal accuracy the fastest.
        ([("a", 0.9, 0.002), ("b", 0.5, 0.002)], "b"),
        # The target stands: the most accurate that meets it, before what misses it.
        ([("a", 0.5, 0.12), ("b", 0.9, 0.03), ("c", 1.1, 0.0)], "b"),
        # Nothing meets it: the nearest within the limit before a nearer one beyond.
        ([("a", 1.2, 0.005), ("b", 1.1, 0.2), ("c", 1.5, 0.0)], "a"),
        ([("a", 1.2, 0.05), ("b", 1.1, 0.2)], "b"),
    ],
)
def test_the_target_stands(rows, label):
    assert best([contender(*row) for row in rows], TARGET) == label


@pytest.mark.parametrize(
    ("rows", "label"),
    [
        ([("a", 0.5, 0.008), ("b", 0.9, 0.002)], "b"),
        # The limit stands: the fastest within it, although another one meets the target.
        ([("a", 0.5, 0.12), ("b", 1.3, 0.004), ("c", 1.2, 0.009)], "c"),
    ],
)
def test_the_accuracy_stands_where_it_is_preferred(rows, label):
    assert best([contender(*row) for row in rows], ACCURACY) == label


def test_the_fastest_keeps_to_the_limit():
    rows = [contender("a", 0.3, 0.02), contender("b", 0.6, 0.009), contender("c", 0.9, 0.0)]
    assert best(rows, FASTEST) == "b"


def test_one_that_meets_both_ends_the_run():
    rows = [LOSSLESS, contender("a", 0.9, 0.004), contender("b", 0.5, 0.008)]
    assert shipped(rows) == ("a", ["a"])


def test_a_finished_one_that_misses_is_followed_by_another_that_promises_to_meet():
    rows = [LOSSLESS, contender("a", 0.97, 0.004), contender("b", 0.5, 0.008)]
    assert shipped(rows, truth={"a": Standing(1.05, 0.004)}) == ("b", ["a", "b"])


@pytest.mark.parametrize(("second", "label"), [(0.03, "a"), (0.06, "b")])
def test_where_the_limit_is_broken_one_that_loses_less_is_tried_and_the_better_ships(second, label):
    rows = [LOSSLESS, contender("a", 0.97, 0.02), contender("b", 0.5, 0.009)]
    truth = {"a": Standing(0.99, second, second), "b": Standing(0.5, 0.05, 0.05)}
    assert shipped(rows, truth=truth) == (label, ["b", "a"])


def test_what_training_does_not_win_back_is_given_up_where_accuracy_is_preferred():
    """The first one is what the target asks for, since training may bring it into the limit."""
    rows = [LOSSLESS, contender("a", 0.9, 0.05), contender("b", 1.2, 0.004)]
    won = {"a": Standing(0.9, 0.006, 0.006)}
    assert shipped(rows, ACCURACY, won) == ("a", ["a"])
    assert shipped(rows, ACCURACY) == ("b", ["a", "b"])


def test_without_time_only_what_is_exact_follows_one_that_cannot_ship():
    rows = [LOSSLESS, contender("a", 0.9, 0.05), contender("b", 1.2, 0.004)]
    assert shipped(rows, ACCURACY, more=lambda: False) == ("lossless", ["a", "lossless"])
    assert shipped(rows, TARGET, more=lambda: False) == ("a", ["a"])


def test_attempts_are_bounded_and_exact_ones_are_always_there():
    rows = [LOSSLESS, *(contender(f"t{i}", 0.5 + i / 10, 0.004) for i in range(5))]
    truth = {f"t{i}": Standing(0.5, 0.3, 0.3) for i in range(5)}
    label, begun = shipped(rows, ACCURACY, truth)
    assert label == "lossless" and len(begun) == ATTEMPTS + 1
    label, begun = shipped(rows, TARGET, truth)
    assert len(begun) == ATTEMPTS and label != "lossless"


def test_one_that_measures_slower_than_the_original_never_ships_while_another_does():
    rows = [contender("lossless", 0.9, exact=True), contender("original", 0.95, exact=True)]
    slow = Standing(0.5, usable=False)
    assert shipped(rows, truth={"lossless": slow}) == ("original", ["lossless", "original"])
    label, _ = shipped(rows, truth={"lossless": slow, "original": slow})
    assert label in ("lossless", "original")  # the caller refuses it


def test_one_that_fails_is_passed_over_and_the_first_error_is_raised_where_all_fail():
    rows = [LOSSLESS, contender("a", 0.9, 0.004), contender("b", 0.5, 0.008)]
    assert shipped(rows, truth={"a": RuntimeError("no")}) == ("b", ["a", "b"])
    truth = {"a": RuntimeError("first"), "b": RuntimeError("b"), "lossless": RuntimeError("c")}
    with pytest.raises(RuntimeError, match="first"):
        shipped(rows, truth=truth)


@pytest.mark.parametrize("error", [UsageError("mine"), ArtifactError("the disk is full")])
def test_what_no_other_variant_helps_against_ends_the_run(error):
    rows = [LOSSLESS, contender("a", 0.9, 0.004)]
    with pytest.raises(type(error)):
        shipped(rows, truth={"a": error})


def test_what_is_learned_meanwhile_counts():
    """The machine was slow before: lossless work is enough after all, by what is known now."""
    known = [contender("lossless", 1.3, exact=True), contender("a", 0.9, 0.004)]
    later = [contender("lossless", 0.8, exact=True), contender("a", 0.6, 0.004)]
    begun = []

    def finish(one):
        begun.append(one.label)
        return Done(one.label, one.standing)

    rows = lambda: later if begun else known  # noqa: E731
    assert finish_best(rows, finish, TARGET, lambda: True).label == "lossless"
    assert begun == ["a", "lossless"]
