"""Accuracies of rungs can be compared, whatever part of the data each was judged on."""

from __future__ import annotations

import pytest
from modelspeed.core.records import Quality
from modelspeed.tuning.ladder.build import accuracy_of

TOP = Quality("accuracy", True, 0.90, 0.90, 1.0, 600, 600)


def test_on_the_same_examples_it_is_as_measured():
    assert accuracy_of(Quality("accuracy", True, 0.90, 0.85, 0.9, 600, 600), TOP) == 0.85


def test_on_others_the_loss_there_counts():
    few = Quality("accuracy", True, 0.95, 0.93, 0.9, 100, 600)
    assert accuracy_of(few, TOP) == pytest.approx(0.88)


def test_without_labels_there_is_none():
    assert accuracy_of(Quality("agreement", False, agreement=0.9), TOP) is None
    assert accuracy_of(None, None) is None
