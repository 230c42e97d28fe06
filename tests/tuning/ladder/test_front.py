"""Rungs sit on the front and apart."""

from __future__ import annotations

from modelspeed.tuning.ladder.front import RungPoint, front_of


def points(*rows):
    return [RungPoint("abcdef"[i], ms, score) for i, (ms, score) in enumerate(rows)]


def test_a_staircase_stays_as_it_is():
    assert front_of(points((8, 0.9), (4, 0.8), (2, 0.7))) == ([0, 1, 2], {})


def test_one_that_costs_no_accuracy_replaces_all_that_it_beats():
    kept, reasons = front_of(points((8, 0.9), (5, 0.7), (4, 0.75), (2, 0.8)))
    assert kept == [0, 3] and set(reasons) == {1, 2}
    assert reasons[1] == "`c` is faster and loses no accuracy against it"


def test_the_original_stays_on_top_even_of_one_that_is_better_in_both():
    assert front_of(points((8, 0.9), (4, 0.95))) == ([0, 1], {})


def test_one_that_gains_under_five_percent_is_dropped_and_that_is_said():
    kept, reasons = front_of(points((10, 0.9), (9.6, 0.8), (9.4, 0.7)))
    assert kept == [0, 2]
    assert reasons == {1: "it takes 9.6 ms, 4.0% less than `a`; a rung must gain 5%"}


def test_one_that_measured_slower_than_the_one_above_is_dropped():
    kept, reasons = front_of(points((4, 0.9), (5, 0.8), (2, 0.7)))
    assert kept == [0, 2] and "25.0% more than `a`" in reasons[1]


def test_order_is_that_of_the_measured_times():
    assert front_of(points((8, 0.9), (2, 0.6), (4, 0.7)))[0] == [0, 2, 1]
