"""The rungs that are asked for, as targets."""

from __future__ import annotations

import pytest
from modelspeed.core.errors import UsageError
from modelspeed.core.records import Target
from modelspeed.tuning.ladder.build import affordable
from modelspeed.tuning.ladder.goals import RungGoals, goal_name, numbers_of

USUAL = Target(batch=4, threads=1)


def speedups(goals, slowest=1.0, fastest=20.0):
    return [t.speedup for t in goals.targets(USUAL, slowest, fastest)]


def test_named_targets_are_worked_off_from_the_easiest_to_the_hardest():
    found = RungGoals(targets_ms=(2.0, 8.0, 4.0)).targets(USUAL, 1.0, 9.0)
    assert [t.ms for t in found] == [8.0, 4.0, 2.0] and {t.batch for t in found} == {4}
    assert [goal_name(t) for t in found] == ["8ms", "4ms", "2ms"]


def test_a_speed_up_of_one_is_the_top_and_no_target_of_its_own():
    goals = RungGoals(speedups=(4.0, 1.0, 2.0, 2.0))
    assert speedups(goals) == [2.0, 4.0] and goals.count == 2
    assert goal_name(goals.targets(USUAL, 1.0, 9.0)[0]) == "2x"


def test_without_targets_rungs_are_spread_by_equal_ratios_up_to_eight_times():
    assert speedups(RungGoals()) == [2.0, 4.0, 8.0]
    assert speedups(RungGoals(rungs=3), slowest=2.0) == [4.0, 8.0]


def test_they_do_not_go_beyond_what_the_search_can_build():
    assert max(speedups(RungGoals(rungs=4), fastest=3.0)) < 3.0
    assert speedups(RungGoals(rungs=4), slowest=1.5, fastest=1.52) == []


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"rungs": 1}, "--rungs"), ({"rungs": 65}, "--rungs"), ({"targets_ms": (0.0,)}, "above 0"),
        ({"speedups": (0.5,)}, "at least 1"), ({"speedups": (float("nan"),)}, "--speedups"),
        ({"rungs": 3, "speedups": (2.0,)}, "exclude"), ({"targets_ms": (1.0,) * 64}, "64 rungs"),
    ],
)  # fmt: skip
def test_what_can_not_be_is_refused_with_its_flag(given, named):
    with pytest.raises(UsageError, match=named):
        RungGoals(**given)


def test_numbers_stand_between_commas():
    assert numbers_of("--speedups", " 1, 2,4") == (1.0, 2.0, 4.0)
    assert numbers_of("--speedups", None) == ()
    with pytest.raises(UsageError, match="--targets-ms"):
        numbers_of("--targets-ms", "2;4")


def test_where_time_is_short_the_hardest_target_stays():
    row = [Target(speedup=s) for s in (2.0, 3.0, 4.0)]
    assert affordable(row, 9.0) == row and affordable([], 2.0) == []
    assert affordable(row, 0.4) == [row[2]] and affordable(row, 2.5) == [row[0], row[2]]
