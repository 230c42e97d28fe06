from __future__ import annotations

from bisect import bisect_left
from types import SimpleNamespace

import pytest
from fake_rungs import MEDIANS, SCORES, SIZES, median_of, rung_times
from hypothesis import given, settings
from hypothesis import strategies as st
from modelspeed.runtime.ladder.policy import Dispatch, LookAhead
from modelspeed.runtime.ladder.predictor import Predictor
from modelspeed.runtime.ladder.scheduler import Scheduler
from modelspeed.runtime.ladder.slowdown import SPREADS
from modelspeed.runtime.ladder.times import RungTimes
from plain_policy import PlainLookAhead
from virtual_stream import arrivals, simulate

TIMES = rung_times()


def policy(slo=25.0, **other):
    predictor = Predictor(TIMES)
    for _ in range(60):
        predictor.observe(0, 1, MEDIANS[0])
    return LookAhead(predictor, slo, **other)


class OneRung:
    """A fixed rung in full batches: what a program does without a ladder."""

    def __init__(self, rung, most=16):
        self.rung, self.most = rung, most

    def decide(self, deadlines, now, rate):
        late = bisect_left(deadlines, now + MEDIANS[self.rung])
        return Dispatch(late, self.rung, min(self.most, len(deadlines) - late))

    def admits(self, place, slack_ms, busy_ms):
        return True

    def rest(self, now):
        pass


def test_a_single_request_with_time_gets_the_most_accurate_rung():
    assert policy().decide([25.0], 0.0, 0.0) == Dispatch(0, 0, 1)


@pytest.mark.parametrize(("slack", "rung"), [(9, 0), (5, 1), (2.5, 2), (1.3, 3)])
def test_a_single_request_with_less_time_gets_a_faster_one(slack, rung):
    assert policy().decide([slack], 0.0, 0.0).rung == rung


def test_those_that_cannot_make_it_are_refused_and_the_next_is_served():
    decision = policy().decide([0.1, 0.2, 25.0], 0.0, 0.0)
    assert decision.refused == 2 and decision.count == 1 and decision.rung == 0
    assert policy().decide([0.1, 0.2], 0.0, 0.0) == Dispatch(2)


def test_a_long_queue_is_drained_in_big_batches_of_a_fast_rung():
    decision = policy(12.0).decide([12.0] * 60, 0.0, 0.0)
    assert decision.count == 16 and decision.rung == 3


def test_an_urgent_request_before_patient_ones_is_served_in_time():
    decision = policy(100.0).decide([2.5, *[100.0] * 6], 0.0, 0.0)
    assert decision.refused == 0 and median_of(decision.rung, decision.count) < 2.5


def test_it_leaves_enough_time_to_the_requests_behind():
    """The top rung first would hold the first deadline and break the second."""
    decision = policy(100.0).decide([9.0, 9.6], 0.0, 0.0)
    assert decision in (Dispatch(0, 1, 1), Dispatch(0, 1, 2))


def test_a_slower_machine_means_less_time():
    slow = policy()
    for _ in range(3):
        slow._predictor.observe(0, 1, 2 * MEDIANS[0])
    assert slow.decide([9.0], 0.0, 0.0).rung == 1


def test_what_cannot_be_in_time_behind_the_others_is_not_admitted():
    assert policy().admits(0, 5.0, 0.0) and not policy().admits(0, 5.0, 4.5)
    assert policy().admits(10, 25.0, 0.0) and not policy().admits(200, 25.0, 0.0)


def test_outputs_that_cannot_be_told_apart_run_one_by_one():
    single = policy()
    single.run_singly()
    assert single.decide([12.0] * 60, 0.0, 0.0).count == 1


def some_sizes(row, sizes, only_sizes=False):
    kept = {size: row.samples_ms[size] for size in sizes}
    return RungTimes(row.name, row.score, kept, only_sizes)


# As measured; rungs that were measured at other sizes; graphs of one batch size each.
LADDERS = {
    "whole": TIMES,
    "parts": [some_sizes(row, SIZES[place:]) for place, row in enumerate(TIMES)],
    "fixed": [some_sizes(row, (4,), only_sizes=True) for row in TIMES],
}
BOTH = {}
for name, times in LADDERS.items():
    known = Predictor(times)
    machine = SimpleNamespace(times=known.times, scores=known.scores, state=known.state)
    BOTH[name] = machine, LookAhead(machine, 25.0), PlainLookAhead(machine, 25.0)


@pytest.mark.parametrize("name", LADDERS)
@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.one_of(st.floats(-5, 60), st.sampled_from([3.0, 12.0, 25.0])), min_size=1),
    st.integers(1, 4),
    st.one_of(st.sampled_from([0.0, 0.1, 1.0, 1e3]), st.floats(0.01, 8)),
    st.floats(-0.5, 1.5),
    st.integers(0, len(SPREADS) - 1),
)
def test_it_decides_as_its_plain_form_does(name, slacks, times, rate, mean, cell):
    machine, ours, plain = BOTH[name]
    machine.state = (mean, cell)
    deadlines = sorted(slacks * times)
    assert ours.decide(deadlines, 0.0, rate) == plain.decide(deadlines, 0.0, rate)


@pytest.mark.parametrize(("rate", "slo"), [(0.2, 25.0), (1.5, 25.0), (4.0, 12.0)])
def test_in_a_stream_it_decides_as_its_plain_form_does(rate, slo):
    class Both(LookAhead):
        def decide(self, deadlines, now, rate):
            found = super().decide(deadlines, now, rate)
            assert found == plain.decide(deadlines, now, rate)
            return found

    predictor = Predictor(TIMES)
    plain = PlainLookAhead(predictor, slo)
    slows = lambda now: 1.6 if now % 100 > 70 else 1.0  # noqa: E731
    times = arrivals(rate, 300 / rate, seed=5, burst=6.0)
    found = simulate(Both(predictor, slo), predictor, times, slo, slows)
    assert found.runs > 10


FAST_TWO = Predictor(TIMES[2:])


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.floats(-20, 200), min_size=1, max_size=80),
    st.floats(0, 1e6),
    st.sampled_from([0.0, 0.1, 5.0, 1e6]),
)
def test_a_decision_is_always_one_that_can_be_carried_out(slacks, now, rate):
    deadlines = sorted(now + s for s in slacks)
    decision = LookAhead(FAST_TWO, 25.0).decide(deadlines, now, rate)
    assert 0 <= decision.refused and decision.refused + decision.count <= len(deadlines)
    assert decision.count or decision.refused == len(deadlines)
    assert decision.count <= 16 and 0 <= decision.rung < 2


BURSTY = arrivals(0.2, 1000, seed=1, burst=6.0)
STEADY = arrivals(0.3, 1000, seed=2)


@pytest.mark.parametrize("times", [BURSTY, STEADY], ids=["bursty", "steady"])
def test_it_brings_more_accuracy_in_time_than_any_fixed_rung(times):
    ours = simulate(policy(), Predictor(TIMES), times, 25.0)
    fixed = [simulate(OneRung(r), Predictor(TIMES), times, 25.0) for r in range(len(SCORES))]
    assert ours.attainment > 0.995
    assert ours.value > max(outcome.value for outcome in fixed)


def test_when_the_machine_slows_down_answers_stay_in_time():
    predictor = Predictor(TIMES)
    found = simulate(
        LookAhead(predictor, 25.0), predictor, STEADY, 25.0, lambda now: 2.0 if now > 500 else 1.0
    )
    assert found.late <= 6 and found.attainment > 0.97


def test_after_the_machine_all_but_stood_still_it_is_served_again():
    """A belief in a slowdown that lets nothing run would never see that it is over."""
    predictor, times = Predictor(TIMES), arrivals(0.1, 8000, seed=5)
    found = simulate(
        LookAhead(predictor, 25.0), predictor, times, 25.0, lambda ms: 40.0 if ms < 500 else 1.0
    )
    after = sum(ms > 4500 for ms in times)
    assert predictor.slowdown.factor == pytest.approx(1, rel=0.1)
    assert found.in_time > after and found.late < 30


@pytest.mark.parametrize("load", [0.1, 1.0, 5.0])
def test_every_request_of_a_simulation_ends_once(load):
    times = arrivals(load, 300, seed=3)
    found = simulate(policy(12.0), Predictor(TIMES), times, 12.0, max_queue=20)
    assert found.requests == len(times) and found.in_time > 0


def test_under_overload_what_is_answered_is_answered_in_time():
    found = simulate(policy(), Predictor(TIMES), arrivals(6.0, 300, seed=4), 25.0)
    assert found.refused > 0.3 * found.requests
    assert found.late < 0.02 * found.requests


# The queue


def queue(most=3):
    return Scheduler(OneRung(3, most=2), most)


def test_requests_wait_in_order_of_their_deadlines_and_of_arrival():
    waiting = queue(5)
    for name, deadline in (("b", 20.0), ("a", 10.0), ("c", 20.0), ("d", 30.0)):
        assert waiting.submit(name, deadline, 0.0) is None
    assert list(waiting) == ["a", "b", "c", "d"]
    found = waiting.next(0.0)
    assert (found.requests, found.deadlines) == (("a", "b"), (10.0, 20.0)) and list(waiting) == [
        "c", "d"
    ]  # fmt: skip


def test_the_queue_is_bounded_and_canceling_makes_room():
    waiting, (a, b, c, d) = queue(), [[name] for name in "abcd"]
    assert [waiting.submit(i, 50.0, 0.0) for i in (a, b, c, d)] == [None, None, None, "full"]
    assert waiting.remove(b, 50.0) and not waiting.remove(b, 50.0)
    assert waiting.submit(d, 50.0, 0.0) is None and list(waiting) == [a, c, d]


def test_the_rate_is_that_of_late():
    waiting = queue(10_000)
    for i in range(300):
        waiting.submit(i, 1e9, 5.0 * i)
    assert waiting.rate == pytest.approx(0.2)
