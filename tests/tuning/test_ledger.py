"""Where the time goes: exclusive seconds that sum to the run's."""

from __future__ import annotations

import pytest
from modelspeed.tuning.ledger import BUILDING, EARLIER, EVALUATING, JUDGING, REST, VERIFYING, Ledger


class Clock:
    now = 100.0

    def __call__(self):
        return self.now

    def wait(self, seconds):
        self.now += seconds


def test_a_block_within_another_one_pauses_it():
    clock = Clock()
    ledger = Ledger(clock)
    with ledger.spends(BUILDING):
        clock.wait(2)
        with ledger.spends(EVALUATING):
            clock.wait(3)
        clock.wait(1)
    clock.wait(7)
    assert ledger.seconds[BUILDING] == 3 and ledger.seconds[EVALUATING] == 3


def test_rows_sum_to_the_whole_with_what_nobody_claimed_and_what_was_before():
    clock = Clock()
    ledger = Ledger(clock)
    with ledger.spends(BUILDING):
        clock.wait(4)
    rows = ledger.rows(20.0, earlier=5.0, planned={BUILDING: 3.0, VERIFYING: 9.0})
    assert [(r.what, r.seconds, r.planned) for r in rows] == [
        (EARLIER, 5.0, None), (BUILDING, 4.0, 3.0), (VERIFYING, 0.0, 9.0), (REST, 11.0, None),
    ]  # fmt: skip
    assert sum(r.seconds for r in rows) == 20.0


def test_a_block_that_fails_is_counted_and_one_that_is_open_too():
    clock = Clock()
    ledger = Ledger(clock)
    with pytest.raises(ValueError), ledger.spends(BUILDING):
        clock.wait(1)
        raise ValueError
    with ledger.spends(BUILDING):
        clock.wait(1)
        assert ledger.rows(2.0)[0].seconds == 2.0


def test_what_another_process_did_in_the_meantime_moves_to_its_own_row():
    clock = Clock()
    ledger = Ledger(clock)
    with ledger.spends(VERIFYING):
        clock.wait(10)
    ledger.moved(4.0, VERIFYING, JUDGING)
    ledger.moved(40.0, VERIFYING, JUDGING)
    assert (ledger.seconds[VERIFYING], ledger.seconds[JUDGING]) == (0.0, 10.0)
