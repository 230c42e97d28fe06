from __future__ import annotations

import csv
import io

import pytest
from modelspeed.core.records import Candidate
from modelspeed.reporting import pareto
from modelspeed.reporting.facts import prediction_error
from sample_record import record


def tried(label, ms, accuracy, predicted=1.0):
    return Candidate(label, ms, ms, ms, accuracy, predicted)


def test_what_is_beaten_in_both_is_not_on_the_front():
    rows = (tried("slow", 3, 0.9), tried("beaten", 3.1, 0.8), tried("fast", 1, 0.5),
            tried("equal", 1, 0.4), tried("unknown", 0.1, None))  # fmt: skip
    assert [c.label for c in pareto.front(rows)] == ["fast", "slow"]


def test_accuracies_on_other_data_are_not_compared():
    original = Candidate("original", 0.5, 0.5, 0.5, 0.99)
    assert [c.label for c in pareto.front((original, tried("a", 3, 0.9)))] == ["a"]


def test_all_that_was_tried_is_a_row():
    shown = record()
    rows = list(csv.DictReader(io.StringIO(pareto.render(shown))))
    assert [r["label"] for r in rows] == [c.label for c in shown.candidates]
    assert {r["accuracy_on"] for r in rows} == {"held-out training data"}
    assert [r["on_front"] for r in rows] == ["True"] * 5


def test_the_error_of_prediction_is_a_median():
    assert prediction_error(record()) == pytest.approx(0.1)
    assert prediction_error(record(candidates=())) is None
