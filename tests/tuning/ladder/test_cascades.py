"""Cascades are calibrated on held-out examples, and recorded where they pay."""

from __future__ import annotations

from types import SimpleNamespace

import torch
from modelspeed.core.ladder_record import CascadeRecord
from modelspeed.tuning.ladder.cascades import NO_CLASSES, NO_DATA, cascades_of, worth_it


class Sees(torch.nn.Module):
    """Logits of the class that the input names, right for inputs under `limit`."""

    def __init__(self, limit):
        super().__init__()
        self.limit = limit

    def forward(self, x):
        at = x[:, 0].long()
        wrong = x[:, 1] >= self.limit
        one_hot = torch.nn.functional.one_hot(torch.where(wrong, (at + 1) % 3, at), 3).float()
        return one_hot * torch.where(wrong, 0.1, 9.0)[:, None]


def data(targets=None):
    rows = torch.arange(600)
    x = torch.stack([rows % 3, rows], 1).float()
    y = rows % 3 if targets is None else targets
    return SimpleNamespace(held_out=[(x[i : i + 100], y[i : i + 100]) for i in range(0, 600, 100)])


def test_what_the_low_rung_is_unsure_of_goes_up():
    (cascade,), why = cascades_of([Sees(1e9), Sees(540)], data(), "cpu")
    assert (cascade.low, cascade.high, cascade.examples, why) == (1, 0, 600, "")
    assert cascade.accuracy >= 0.995 and 0.05 < cascade.share <= 0.1


def test_there_are_none_without_data_or_without_classes():
    assert cascades_of([Sees(1), Sees(1)], None, "cpu") == ((), NO_DATA)
    values = data(torch.zeros(600))
    assert cascades_of([Sees(1), Sees(1)], values, "cpu") == ((), NO_CLASSES)


def test_only_the_one_of_least_mean_latency_is_recorded():
    def cascade(low, share):
        return CascadeRecord(low, 0, 0.5, 0.0, 0.9, share, 100)

    rows = [cascade(1, 0.1), cascade(2, 0.3), cascade(3, 0.9)]
    assert worth_it(rows, [10.0, 6.0, 3.0, 2.0]) == (rows[1],)
    assert worth_it(rows[2:], [10.0, 6.0, 3.0, 2.0]) == ()
    assert worth_it([cascade(1, 0.0)], [10.0, 6.0]) == ()
