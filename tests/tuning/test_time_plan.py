"""The minutes, divided: what comes last is kept free first."""

from __future__ import annotations

from dataclasses import replace

import pytest
from modelspeed.tuning.ledger import JUDGING, VERIFYING
from modelspeed.tuning.schedule import Costs, Sizes, Work, planned_seconds, schedule
from modelspeed.tuning.schedule import plan_lines as lines_of
from modelspeed.tuning.time_plan import GRACE, TimePlan

COSTS = Costs(reading=1e-3, forward=3.5e-3, building=1.0, measuring=1.5, step=0.2, verification=15)
WORK = Work(total=10_000, decisions=4, training_steps=300, searches=True, has_data=True, share=0.5)


HALVED = replace(WORK, total=5000, halved=True, judging=5000)


def plan_lines(made, time, work):
    return lines_of(made, time.costs, work, time.left, time.limit)


class Clock:
    now = 50.0

    def __call__(self):
        return self.now


def plan_of(limit, costs=COSTS):
    clock = Clock()
    return TimePlan(limit, clock, clock.now, costs), clock


def evaluating(made, work=WORK, costs=COSTS):
    rows = planned_seconds(made, costs, work, {})
    return sum(s for what, s in rows.items() if what.startswith("evaluating"))


@pytest.mark.parametrize("limit", [300, 600, 1200])
@pytest.mark.parametrize("slower", [1, 10, 100])
def test_evaluation_takes_at_most_its_share_of_the_limit(limit, slower):
    costs = Costs(reading=1e-3 * slower, forward=3.5e-3 * slower)
    made = schedule(costs, WORK, limit, limit - 30)
    assert evaluating(made, costs=costs) <= 0.151 * limit
    assert made.scored_on <= 2048 and made.decided_on <= 2048


def test_parts_sum_to_what_is_left_with_two_rounds_and_a_training():
    made = schedule(COSTS, WORK, 600, 560)
    assert made.rounds == 2 and not any("round" in one for one in made.cut)
    assert made.training == pytest.approx(300 * 0.2 * 1.1)
    assert made.scored_on >= 128
    whole = made.search + made.training + made.judging + 2 * COSTS.verification + COSTS.writing
    whole += made.stepping
    assert whole == pytest.approx(560) and made.candidates == int(made.search / 2.5)


def test_all_of_the_data_is_read_where_it_fits_and_a_part_is_said_where_not():
    assert schedule(COSTS, WORK, 1200, 1150).examples == 0
    short = schedule(COSTS, WORK, 200, 180)
    assert 0 < short.examples < 10_000
    assert f"the last word on {short.examples:,} of 10,000 examples" in short.cut


@pytest.mark.parametrize("left", [1, 20, 40, 60, 100, 200])
def test_what_does_not_fit_is_said(left):
    made = schedule(COSTS, WORK, 200, left)
    assert made.search >= 0 and made.training >= 0 and made.judging >= 0
    if left < 60:
        assert "one round of verification instead of two" in made.cut and made.rounds == 1
        assert any(one.startswith("training of about") for one in made.cut)


def test_the_plan_is_a_few_short_lines():
    time, _ = plan_of(200)
    made = time.make(WORK)
    lines = plan_lines(made, time, WORK)
    assert 5 <= len(lines) <= 6 and all(len(line) < 130 for line in lines)
    text = "\n".join(lines)
    for part in ("evaluation: ", " of 10,000 examples", "candidates", "training: ", "2 rounds"):
        assert part in text
    alone = plan_lines(time.make(Work()), time, Work())
    assert [line.split(":")[0] for line in alone] == ["plan", "verification"]


def test_a_plan_that_goes_on_keeps_the_sizes_of_before():
    time, _ = plan_of(600)
    assert time.make(WORK, Sizes(7, 9)).scored_on == 9


def test_a_training_that_could_not_even_begin_is_left_out():
    time, clock = plan_of(600)
    time.make(WORK)
    assert not time.too_late_to_train
    clock.now = time.end - time.final - 1.0
    assert time.too_late_to_train
    assert not TimePlan().too_late_to_train


def played(limit, candidate, step, verification, example, busy=False, compiling=0.0, reporting=0.0):
    """A run whose stages take what they take, while the plan knows only estimates of them.

    On a `busy` machine each verification waits as long as it may. `reporting`: of the process that
    reads the other half at the end, where there is one.
    """
    work = HALVED if reporting else WORK
    guess = Costs(reading=0.0, forward=example / 1.5, building=1.0, measuring=1.5, step=0.1)
    time, clock = plan_of(limit, guess)
    clock.now += 20 if limit > 60 else 10
    time.knows_runtime(compiling > 0)
    time.knows_opening(verification - 12.0, reporting > 0)
    made, rounds = time.make(work), 0

    def last_word():
        return min(time.judging_seconds, (made.examples or work.total) * example)

    def verify(judged):
        patience = time.patience if judged else time.search_patience
        clock.now += verification + (patience if busy else 0.0)
        time.saw("verification", verification)
        if judged and reporting:
            most = time.deciding_seconds(made.decided_on)
            clock.now += min(most, 2 * made.decided_on * example)
        elif judged:
            clock.now += last_word()

    while time.in_search():
        with time.timed("building"):
            clock.now += candidate
    verify(False)
    while True:
        deadline = time.training_deadline
        with time.running():
            for _ in range(work.training_steps):
                clock.now += step
                if clock.now > deadline:
                    break
        if compiling:
            with time.compiling():
                clock.now += compiling
        verify(True)
        rounds += 1
        if rounds == 4 or not time.another_final_fits():
            break
    if reporting:
        clock.now += reporting + last_word()
    return clock.now - time.started, rounds


@pytest.mark.parametrize("limit", [300, 600])
@pytest.mark.parametrize("candidate", [0.5, 10, 25])
@pytest.mark.parametrize("step", [0.01, 0.5, 10])
@pytest.mark.parametrize("verification", [8, 20])
@pytest.mark.parametrize("example", [1e-4, 1e-2, 1.0])
def test_a_run_ends_in_time_whatever_its_work_turns_out_to_take(
    limit, candidate, step, verification, example
):
    seconds, rounds = played(limit, candidate, step, verification, example)
    assert seconds <= 1.05 * limit + 30 and rounds >= 1


@pytest.mark.parametrize("limit", [60, 300])
@pytest.mark.parametrize("candidate", [0.5, 10])
@pytest.mark.parametrize("step", [0.01, 0.5, 10])
@pytest.mark.parametrize("example", [1e-4, 1e-2, 1.0])
@pytest.mark.parametrize("reporting", [3.0, 8.0])
def test_a_run_that_reports_on_the_other_half_ends_in_time(
    limit, candidate, step, example, reporting
):
    done = played(limit, candidate, step, 12.0 + reporting, example, reporting=reporting)
    assert done[0] <= 1.05 * limit + 30 and done[1] >= 1


def test_what_judges_and_what_reports_are_sizes_of_their_own():
    small = replace(HALVED, judging=300)
    made = schedule(COSTS, small, 1200, 1170)
    assert made.decided_on <= 300 and made.scored_on <= 300
    assert evaluating(made, small) <= 0.151 * 1200
    time, _ = plan_of(1200, replace(COSTS, reporting=5.0))
    before = time.final
    lines = "; ".join(plan_lines(time.make(small), time, small))
    assert "5,000 examples that report at the end" in lines and "up to 300 for a decision" in lines
    time.knows(reporting=15.0)
    assert time.final >= before + 10.0


@pytest.mark.parametrize("limit", [300, 600])
@pytest.mark.parametrize("candidate", [0.5, 25])
@pytest.mark.parametrize("step", [0.01, 10])
@pytest.mark.parametrize("example", [1e-4, 1e-2, 1.0])
@pytest.mark.parametrize("compiling", [0.0, 30.0, 60.0])
def test_a_run_that_waits_for_quiet_and_compiles_ends_in_time(
    limit, candidate, step, example, compiling
):
    seconds, rounds = played(limit, candidate, step, 15, example, True, compiling)
    assert seconds <= 1.05 * limit + 30 and rounds >= 1


def test_patience_at_the_end_is_of_what_is_free():
    time, clock = plan_of(600)
    time.make(WORK)
    assert time.patience == pytest.approx(0.4 * 600)
    for left in (200, 150, 120, 100, 60, 20, -5):
        clock.now = time.end - left
        ends = left - COSTS.verification - time.judging_seconds - time.patience - COSTS.writing
        assert time.patience >= 0 and (ends >= 0 or time.patience <= 10)
        # What is measured must be, but nothing waits far beyond the limit.
        assert -ends <= GRACE or time.patience == 0
    assert TimePlan().patience == TimePlan().search_patience == 60


def test_patience_in_the_search_is_of_the_search():
    time, clock = plan_of(600)
    time.make(WORK)
    assert time.search_patience == 60
    clock.now = time.search_deadline - COSTS.verification - 25
    assert time.search_patience == pytest.approx(25)
    clock.now = time.search_deadline + 5
    assert time.search_patience == 10


def test_what_a_compiler_takes_is_kept_free_and_said():
    time, clock = plan_of(600)
    plain = time.make(WORK)
    before = time.final
    time.knows_runtime(compiled=True)
    made = time.make(WORK)
    assert time.final == pytest.approx(before + 1.1 * 45) and made.search == plain.search - 45
    assert "compiled in 45 s" in " ".join(plan_lines(made, time, WORK))
    with time.compiling():
        clock.now += 80
    time.knows_runtime(compiled=True)
    assert time.costs.compiling == 80


def test_a_verification_is_stuck_only_long_after_what_it_costs():
    time, _ = plan_of(600)
    time.make(Work())
    assert time.stuck_after == 900
    time.knows(verification=200.0)
    assert time.stuck_after >= 2000 and TimePlan().stuck_after == 900


def test_how_many_examples_there_are_is_not_made_up():
    time, _ = plan_of(600)
    unknown = Work(has_data=True)
    line = plan_lines(time.make(unknown), time, unknown)[1]
    assert f"all examples, at most {time.made.examples:,}, at the end" in line


def test_planned_rows_hold_what_is_gone_already():
    time, _ = plan_of(600)
    made = time.make(WORK)
    rows = planned_seconds(made, time.costs, WORK, {VERIFYING: 4.0})
    assert rows[VERIFYING] == 34.0 and rows[JUDGING] == round(made.judging, 1)
