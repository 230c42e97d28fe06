"""Metrics of torchmetrics: over all examples, higher is better."""

from __future__ import annotations

import sys

import pytest
import torch
from modelspeed.configs.recipe import DataSpec
from modelspeed.core.errors import DataError, MissingExtra
from modelspeed.data.metrics import LibraryMetric, library_metric
from modelspeed.profiling.accuracy import evaluate
from pydantic import ValidationError
from torch import nn

OUTPUTS = torch.tensor([[2.0, 0, 0], [0, 2.0, 0], [0, 2.0, 0], [0, 0, 2.0], [0, 0, 2.0]])
TARGETS = torch.tensor([0, 0, 1, 2, 0])


def score(spec, outputs=OUTPUTS, targets=TARGETS):
    batches = [(outputs[:2], targets[:2]), (outputs[2:], targets[2:])]
    return evaluate(nn.Identity(), batches, library_metric(spec))


def test_it_is_one_number_over_all_batches_each_time_anew():
    # F1 of the classes: 1/2, 2/3, 2/3; a mean over the two batches would be another number.
    wanted = (0.5 + 2 / 3 + 2 / 3) / 3
    metric = LibraryMetric("torchmetrics:MulticlassF1Score")
    for _ in range(2):
        found = evaluate(
            nn.Identity(), [(OUTPUTS[:2], TARGETS[:2]), (OUTPUTS[2:], TARGETS[2:])], metric
        )
        assert found == (pytest.approx(wanted), 5)
    assert score("torchmetrics:Accuracy") == (pytest.approx(0.6), 5)


def test_errors_come_back_negated():
    x = torch.arange(8.0).view(4, 2)
    assert score("torchmetrics:MeanSquaredError", x, x + 2)[0] == pytest.approx(-4.0)
    assert score("torchmetrics:R2Score", x[:, 0], x[:, 0])[0] == pytest.approx(1.0)


def test_labels_of_the_outputs_shape_are_multilabel():
    held = (torch.rand(5, 3, generator=torch.Generator().manual_seed(0)) > 0.5).long()
    assert score("torchmetrics:F1Score", held.float(), held)[0] == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("torchmetrics:MulticlasF1", "near ones are .*F1"),
        ("torchmetrics:ConfusionMatrix", "no single number"),
        ("torchmetrics:MeanSquaredError", r"refuses outputs \[2, 3\] and targets \[2\]"),
    ],
)
def test_what_can_not_be_one_number_is_a_sentence(spec, words):
    with pytest.raises(DataError, match=words):
        score(spec)


def test_the_extra_is_named_and_other_texts_are_none(monkeypatch):
    assert library_metric("accuracy") is None
    monkeypatch.setitem(sys.modules, "torchmetrics", None)
    with pytest.raises(MissingExtra, match=r"modelspeed\[metrics\]"):
        library_metric("torchmetrics:F1Score")


def test_a_recipe_takes_the_name():
    assert DataSpec(factory="d.py:f", metric="torchmetrics:F1Score").metric
    for bad in ("torchmetrics:", "torchmetrics:a b", "F1Score"):
        with pytest.raises(ValidationError, match="torchmetrics:NAME"):
            DataSpec(factory="d.py:f", metric=bad)


@pytest.mark.parametrize("name", ["BinaryF1Score", "MeanSquaredError"])
def test_one_score_an_example_may_be_a_column(name):
    outputs, targets = torch.tensor([[0.9], [0.2], [0.8], [0.1]]), torch.tensor([1, 0, 0, 0])
    metric = library_metric(f"torchmetrics:{name}")
    values = []
    for shown in (outputs, outputs[:, 0]):
        metric.reset()
        metric.add(shown, targets)
        values.append(metric.result())
    assert values[0] == values[1]
