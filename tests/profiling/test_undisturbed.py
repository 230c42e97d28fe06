from __future__ import annotations

import pytest
from modelspeed.core.records import Latency
from modelspeed.profiling.patience import Patience, Waiting
from modelspeed.profiling.undisturbed import ATTEMPTS, undisturbed


class FakeTime:
    def __init__(self):
        self.seconds, self.pauses = 0.0, []

    def sleep(self, seconds):
        self.pauses.append(seconds)
        self.seconds += seconds

    @property
    def waiting(self):
        return Waiting(lambda: self.seconds, self.sleep)


@pytest.fixture
def fake():
    return FakeTime()


def attempts(*originals: float, fake=None, seconds=0.0):
    taken = iter(originals)
    rows: list[list[Latency]] = []

    def attempt() -> list[Latency]:
        ms = next(taken)
        rows.append([Latency(50.0, ms, ms, ms), Latency(50.0, ms / 2, ms / 2, ms / 2)])
        if fake is not None:
            fake.seconds += seconds
        return rows[-1]

    return attempt, rows


def test_a_quiet_machine_is_measured_once(fake):
    attempt, rows = attempts(4.1)
    found = undisturbed(attempt, 4.0, waiting=fake.waiting)
    assert found.rows == rows[0] and len(rows) == 1
    assert not found.disturbed and fake.pauses == []


def test_it_measures_again_until_the_original_is_as_fast_as_before(fake):
    attempt, rows = attempts(8.0, 4.3, 4.19)
    found = undisturbed(attempt, 4.0, waiting=fake.waiting)
    assert found.rows == rows[2] and not found.disturbed
    assert fake.pauses == [0.5, 1.0]


def test_a_machine_that_stays_slow_is_named_and_its_best_attempt_kept(fake):
    attempt, rows = attempts(8.0, 7.0, 9.0, 8.0)
    found = undisturbed(attempt, 4.0, waiting=fake.waiting)
    assert len(rows) == ATTEMPTS and found.rows[0].value_ms == 7.0 and found.disturbed
    assert [n.code for n in found.rows[1].notices] == ["disturbed"]
    assert "--target-speedup" in found.rows[1].notices[0].remedy


def test_no_attempt_begins_that_would_end_too_late(fake):
    attempt, rows = attempts(8.0, 7.0, fake=fake, seconds=20.0)
    found = undisturbed(attempt, 4.0, seconds=50.0, waiting=fake.waiting)
    assert len(rows) == 2 and found.disturbed and fake.seconds < 50.0


def test_before_anything_is_known_nothing_is_disturbed(fake):
    attempt, _ = attempts(8.0)
    assert not undisturbed(attempt, float("inf"), waiting=fake.waiting).disturbed


def test_patience_grows_its_pauses_and_ends(fake):
    patience = Patience(30.0)
    assert list(patience.pauses(fake.sleep)) == [0.5, 1.0, 2.0, 4.0, 8.0, 8.0]
    assert list(patience.pauses(fake.sleep)) == [0.5, 1.0, 2.0] and fake.seconds <= 30.0
    assert list(Patience(0.0).pauses(fake.sleep)) == []
    patience = Patience(30.0)
    patience.at_most(2.0)
    patience.at_most(9.0)
    assert list(patience.pauses(fake.sleep)) == [0.5, 1.0]
