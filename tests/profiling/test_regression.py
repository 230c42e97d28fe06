"""A change since a record counts only beyond what the machine does by itself."""

from __future__ import annotations

import random

import pytest
from modelspeed.core.errors import MeasureError
from modelspeed.profiling.regression import against


def session(chance, ms, drift, count=200):
    """Samples of one session: its own level, small noise around it."""
    level = ms * (1 + chance.gauss(0, drift))
    return [level * (1 + abs(chance.gauss(0, 0.01))) for _ in range(count)]


def findings(factor, drift, runs=5, trials=100):
    results = []
    for seed in range(trials):
        chance = random.Random(seed)
        stored = session(chance, 2.0, drift)
        now = [session(chance, 2.0 * factor, drift) for _ in range(runs)]
        results.append(against(stored, now, 50.0)[0].finding)
    return results


@pytest.mark.parametrize("drift", [0.0, 0.03, 0.1])
def test_the_same_model_in_two_sessions_is_no_change_however_the_machine_drifts(drift):
    assert findings(1.0, drift).count("no significant change") >= 95


@pytest.mark.parametrize(("factor", "finding"), [(1.2, "slower"), (0.8, "faster")])
def test_a_change_beyond_the_drift_is_found_either_way(factor, finding):
    assert findings(factor, 0.01).count(finding) >= 95


def test_a_change_within_the_drift_is_not_claimed():
    assert findings(1.1, 0.1).count("slower") <= 10


def test_what_is_stated_is_stored_by_now_with_the_margin_of_today():
    stored, now = [1.0] * 50, [[2.0] * 50, [2.02] * 50, [1.98] * 50]
    change, margin = against(stored, now, 50.0)
    assert change.speedup == pytest.approx(0.5) and change.finding == "slower"
    assert change.low < 0.5 < change.high < 1.0 and 0.05 < margin < 0.2


def test_two_runs_or_too_few_samples_are_refused():
    with pytest.raises(MeasureError, match="at least 3"):
        against([1.0] * 50, [[1.0] * 50] * 2, 50.0)
    with pytest.raises(MeasureError, match="samples"):
        against([1.0] * 5, [[1.0] * 50] * 3, 50.0)
