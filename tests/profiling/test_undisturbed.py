from __future__ import annotations

from modelspeed.core.records import Latency
from modelspeed.profiling.undisturbed import ATTEMPTS, undisturbed


def attempts(*originals: float):
    taken = iter(originals)
    rows: list[list[Latency]] = []

    def attempt() -> list[Latency]:
        ms = next(taken)
        rows.append([Latency(50.0, ms, ms, ms), Latency(50.0, ms / 2, ms / 2, ms / 2)])
        return rows[-1]

    return attempt, rows


def test_a_quiet_machine_is_measured_once():
    attempt, rows = attempts(4.1)
    assert undisturbed(attempt, 4.0) == rows[0] and len(rows) == 1


def test_it_measures_again_until_the_original_is_as_fast_as_before():
    attempt, rows = attempts(8.0, 7.0, 4.2)
    assert undisturbed(attempt, 4.0) == rows[2]


def test_a_machine_that_stays_slow_is_named_and_its_best_attempt_kept():
    attempt, rows = attempts(8.0, 7.0, 9.0)
    best = undisturbed(attempt, 4.0)
    assert len(rows) == ATTEMPTS and best[0].value_ms == 7.0
    assert [n.code for n in best[1].notices] == ["disturbed"]
    assert "--target-speedup" in best[1].notices[0].remedy
