from __future__ import annotations

import math

import pico
import pytest
from modelspeed.core.model_io import Inputs
from modelspeed.core.records import Latency, Target
from modelspeed.graph.capture import capture
from modelspeed.profiling.undisturbed import Attempts
from modelspeed.tuning import baseline
from modelspeed.tuning.baseline import Baseline, BaselineRuns, measured_baseline

INPUTS = Inputs.of((pico.images(1),))


def row(ms):
    return Latency(50.0, ms, ms, ms, (ms,) * 40)


def test_before_anything_is_measured_nothing_is_slow():
    assert Baseline().quiet_ms == math.inf


def test_the_quiet_time_is_of_all_that_was_seen_and_the_reference_stays():
    found = BaselineRuns(row(6.0), (6.1, 6.0, 9.0)).baseline()
    assert found.latency.value_ms == 6.0 and found.quiet_ms == pytest.approx(6.05)
    for ms in (4.0, 4.02, 4.04):  # the machine became faster; one was a fresh process
        found.note(ms)
    assert found.quiet_ms == pytest.approx(4.02) and found.latency.value_ms == 6.0


def test_the_fastest_of_three_runs_is_the_reference_and_all_are_kept(monkeypatch):
    times = iter([5.0, 4.0, 7.0])
    monkeypatch.setattr(baseline, "latency_of", lambda *_: row(next(times)))
    found = measured_baseline(pico.net([]), INPUTS, Target())
    assert found == BaselineRuns(row(4.0), (5.0, 4.0, 7.0))


def test_every_measurement_beside_a_candidate_is_remembered(monkeypatch):
    times = iter([8.0, 4.1])
    monkeypatch.setattr(
        baseline, "measure_interleaved", lambda *_, **__: [row(ms := next(times)), row(ms / 2)]
    )
    usual = []

    def twice(attempt, usual_ms, attempts):
        usual.append(usual_ms)
        attempt()
        return Attempts(attempt())

    monkeypatch.setattr(baseline, "undisturbed", twice)
    found = Baseline(row(4.0), [4.0, 4.0, 4.0])
    net = pico.net([])
    latency, _ = found.relative_latency(net, capture(net, INPUTS), INPUTS, Target(), ("plain",))
    assert usual == [4.0] and found.seen == [4.0, 4.0, 4.0, 8.0, 4.1]
    assert latency.value_ms == pytest.approx(2.0)
