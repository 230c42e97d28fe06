from __future__ import annotations

import copy
import logging
import pickle

import pytest
import torch
from fake_rungs import MEDIANS, fake_ladder, slow_down
from modelspeed.core.errors import TooLate, UsageError

ONE = torch.zeros(1, 1)


def test_without_a_budget_the_most_accurate_rung_answers():
    ladder, _ = fake_ladder()
    y, how = ladder.answer(ONE)
    assert float(y[0, 2]) == how.rung == 0 and how.name == "0-fake"
    assert how.predicted_ms == pytest.approx(MEDIANS[0], rel=0.1)
    assert how.taken_ms == pytest.approx(MEDIANS[0], rel=0.1)
    assert how.slowdown == pytest.approx(1, rel=0.1) and not how.late_expected


@pytest.mark.parametrize(("budget", "rung"), [(9, 0), (5, 1), (2.5, 2), (1.2, 3)])
def test_a_budget_is_kept_by_the_most_accurate_that_can(budget, rung):
    ladder, clock = fake_ladder()
    before = clock.now
    assert float(ladder(ONE, budget_ms=budget)[0, 2]) == rung
    assert clock.now - before <= budget


def test_refusals_end_once_what_made_the_machine_slow_is_over():
    ladder, clock = fake_ladder()
    slow_down(ladder, 50.0)
    for _ in range(3):
        ladder(ONE)
    slow_down(ladder, 1.0)
    with pytest.raises(TooLate):
        ladder(ONE, budget_ms=9.0, on_late="refuse")
    clock.pass_ms(5000.0)
    ladder(ONE, budget_ms=9.0, on_late="refuse")


def test_nothing_fits_the_fastest_answers_or_it_is_refused():
    ladder, _ = fake_ladder()
    _, how = ladder.answer(ONE, budget_ms=0.1)
    assert how.rung == 3 and how.late_expected
    with pytest.raises(TooLate, match=r"`budget_ms=0.1` now; the fastest, `3-fake`, takes"):
        ladder(ONE, budget_ms=0.1, on_late="refuse")
    stats = ladder.stats()
    assert stats.late["3-fake"] == 1 and stats.refused["late"] == 1
    assert stats.answers["3-fake"] == 1


def test_a_slower_machine_is_noticed_and_believed():
    ladder, _ = fake_ladder()
    slow_down(ladder, 2.0)
    rungs = [ladder.answer(ONE, budget_ms=9)[1].rung for _ in range(6)]
    assert rungs == [0, 0, 1, 1, 1, 1]
    assert ladder.stats().slowdown == pytest.approx(2, rel=0.1)
    assert ladder.stats().late == {"0-fake": 2, "1-fake": 0, "2-fake": 0, "3-fake": 0}


def test_batches_are_predicted_as_batches():
    ladder, _ = fake_ladder()
    _, how = ladder.answer(torch.zeros(8, 1), budget_ms=9)
    assert how.rung == 2 and how.predicted_ms == pytest.approx(2 * 3.1, rel=0.1)


@pytest.mark.parametrize(
    ("wrong", "text"),
    [({"confidence": 1.0}, "between 0 and 1"), ({"on_late": "wait"}, "`answer` or `refuse`")],
)
def test_wrong_arguments_are_told(wrong, text):
    with pytest.raises(UsageError, match=text):
        fake_ladder()[0](ONE, budget_ms=4, **wrong)


def test_it_is_a_module_for_inference_and_for_one_process():
    ladder, _ = fake_ladder()
    assert ladder.eval() is ladder and "0-fake, 1-fake" in repr(ladder)
    for refused in (ladder.train, lambda: copy.deepcopy(ladder), lambda: pickle.dumps(ladder)):
        with pytest.raises(UsageError):
            refused()


def test_an_error_of_the_inputs_is_the_callers_and_teaches_nothing():
    ladder, _ = fake_ladder()
    before = ladder.predictor.state
    with pytest.raises(ValueError, match="bad"):
        ladder(torch.full((1, 1), 666.0))
    assert ladder.predictor.state == before


def test_changes_of_rungs_are_logged_at_most_once_a_second(caplog):
    ladder, clock = fake_ladder()
    with caplog.at_level(logging.INFO, "modelspeed.ladder"):
        for answer in range(40):
            ladder(ONE, budget_ms=9 if answer % 2 else 2.5)
        clock.pass_ms(2000)
        ladder(ONE, budget_ms=2.5)
    first, last = caplog.messages
    assert first.startswith("rung 2-fake after 0-fake") and "more changes" not in first
    assert "39 more changes since the last line" in last
