from __future__ import annotations

import pytest
import torch
from fake_rungs import MEDIANS, FakeClock, fake_ladder, rung_times
from modelspeed.core.errors import UsageError
from modelspeed.core.ladder_record import CascadeRecord
from modelspeed.runtime.ladder.ladder import Ladder
from modelspeed.runtime.ladder.margins import calibrate, margins_of
from torch import nn

SURE, UNSURE = 3.0, 0.1  # inputs of a fake rung, whose margin grows with them
CALIBRATED = CascadeRecord(low=3, high=0, threshold=0.5, max_drop=0.0, accuracy=0.95, share=0.3,
                           examples=100)  # fmt: skip


class Margins(nn.Module):
    """Logits x and -x; `rung` in a second output, `extra` in one of the whole batch."""

    def __init__(self, rung, clock):
        super().__init__()
        self.rung, self.clock, self.calls = rung, clock, []

    def forward(self, x):
        self.calls.append(len(x))
        self.clock.pass_ms(MEDIANS[self.rung] * (1 + 0.3 * (len(x) - 1)))
        logits = torch.cat([x, -x], 1)
        return {"logits": logits, "rung": torch.full((len(x),), self.rung), "whole": x.mean()}


def ladder(**other):
    clock = FakeClock()
    rungs = [Margins(rung, clock) for rung in range(4)]
    return Ladder(rungs, rung_times(**other), cascades=(CALIBRATED,), clock=clock)


def rows(*values):
    return torch.tensor(values)[:, None]


def test_only_unsure_rows_go_up():
    made = ladder()
    y, how = made.cascade().answer(rows(SURE, UNSURE, -SURE, -UNSURE, SURE))
    assert y["rung"].tolist() == [3, 0, 3, 0, 3] and made.rungs[0].calls == [2]
    assert y["logits"][:, 0].tolist() == pytest.approx([SURE, UNSURE, -SURE, -UNSURE, SURE])
    assert (how.answers, how.unsure, how.went_up) == (5, 2, 2)
    assert how.taken_ms == pytest.approx(2.2 + 8 * 1.3, rel=0.05)
    stats = made.stats()
    assert stats.share_up == pytest.approx(0.4)
    assert stats.answers == {"0-fake": 2, "1-fake": 0, "2-fake": 0, "3-fake": 3}
    assert stats.busy_ms["0-fake"] == pytest.approx(8 * 1.3, rel=0.05)
    assert stats.busy_ms["3-fake"] == pytest.approx(2.2, rel=0.05)


def test_all_or_none_may_go_up():
    made = ladder()
    assert made.cascade()(rows(SURE, SURE))["rung"].tolist() == [3, 3]
    assert made.rungs[0].calls == []
    assert made.cascade()(rows(UNSURE))["rung"].tolist() == [0]


def test_what_is_not_a_number_goes_up():
    assert ladder().cascade()(rows(float("nan"), SURE))["rung"].tolist() == [0, 3]


def test_the_budget_may_not_allow_it():
    made = ladder()
    for budget, rung in ((5.0, 3), (20.0, 0)):
        _, how = made.cascade().answer(rows(UNSURE), budget_ms=budget)
        assert how.went_up == (rung == 0) and how.unsure == 1
    assert made.stats().share_up == 0.5 and not sum(made.stats().late.values())


@pytest.mark.parametrize("confidence", [0.0, 1.0, -0.5, float("nan")])
def test_a_confidence_that_is_not_a_share_is_refused(confidence):
    with pytest.raises(UsageError, match=r"`confidence` is .* between 0 and 1"):
        ladder().cascade().answer(rows(SURE), confidence=confidence)


def test_a_graph_of_fixed_sizes_gets_padded_rows():
    made = ladder(only_sizes=True)
    y = made.cascade()(rows(UNSURE, SURE, UNSURE, UNSURE))
    assert y["rung"].tolist() == [0, 3, 0, 0] and made.rungs[0].calls == [4]


def test_rungs_and_threshold_can_be_given():
    made = ladder()
    y = made.cascade(low=2, high=1, threshold=1.1)(rows(SURE))
    assert y["rung"].tolist() == [1]
    with pytest.raises(UsageError, match="two of the rungs 0 to 3"):
        made.cascade(low=2, high=4, threshold=0.5)


def test_without_a_calibration_a_sentence_says_what_to_do():
    with pytest.raises(UsageError, match="no calibrated cascade"):
        fake_ladder()[0].cascade()


@pytest.mark.parametrize("shape", [(1,), (1, 1), (1, 3, 4)])
def test_outputs_that_are_not_classes_are_refused_in_a_sentence(shape):
    made = Ladder([lambda_module(shape)] * 4, rung_times(), clock=FakeClock())
    with pytest.raises(UsageError, match="not a table of logits"):
        made.cascade(low=3, high=0, threshold=0.5)(rows(SURE))


def lambda_module(shape):
    class Shaped(nn.Module):
        def forward(self, x):
            return torch.zeros(shape)

    return Shaped()


# Calibration


def drawn(examples=4000, seed=0):
    """Logits of a weak and a strong rung on the same examples; the weak one errs where unsure."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, 5, (examples,), generator=generator)
    signal = torch.nn.functional.one_hot(labels, 5).float()
    noise = torch.randn(examples, 5, generator=generator)
    return 2.0 * signal + noise, 4.0 * signal + noise, labels


def accuracy(logits, labels):
    return float((logits.argmax(1) == labels).float().mean())


@pytest.mark.parametrize("max_drop", [0.005, 0.02, 0.05])
def test_the_agreed_accuracy_holds_on_examples_it_was_not_calibrated_on(max_drop):
    found = calibrate(1, 0, *drawn(), max_drop=max_drop)
    low, high, labels = drawn(seed=1)
    up = margins_of(low) < found.threshold
    both = torch.where(up[:, None], high, low)
    assert accuracy(high, labels) - accuracy(both, labels) <= max_drop + 0.005
    assert float(up.float().mean()) == pytest.approx(found.share, abs=0.03)
    assert 0 < found.share < 0.8 and found.examples == 4000


def test_the_more_may_be_lost_the_fewer_go_up():
    shares = [calibrate(1, 0, *drawn(), max_drop=d).share for d in (0.0, 0.01, 0.03, 0.1)]
    assert shares == sorted(shares, reverse=True) and len(set(shares)) == 4


def test_equal_rungs_send_nothing_up_and_few_examples_prove_little():
    low, high, labels = drawn()
    assert calibrate(1, 0, high, high, labels).share == 0
    few = calibrate(1, 0, low[:50], high[:50], labels[:50], max_drop=0.02)
    assert few.share > calibrate(1, 0, low, high, labels, max_drop=0.02).share


def test_rows_of_one_margin_go_up_together():
    low = torch.tensor([[1.0, 0.0]] * 10)
    high, labels = torch.tensor([[0.0, 1.0]] * 10), torch.ones(10, dtype=torch.long)
    found = calibrate(1, 0, low, high, labels, max_drop=0.5, sure=0.0)
    assert (found.share, found.accuracy) == (1.0, 1.0)
    assert bool((margins_of(low) < found.threshold).all())


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda a, b, c: (a[:, :1], b[:, :1], c), "logits of"),
        (lambda a, b, c: (a, b[:5], c), "both"),
        (lambda a, b, c: (a, b, c[:5]), "labels"),
        (lambda a, b, c: (a * torch.inf, b, c), "finite"),
    ],
)
def test_other_tables_are_refused(change, text):
    with pytest.raises(UsageError, match=text):
        calibrate(1, 0, *change(*drawn(20)))
    with pytest.raises(UsageError, match="max_drop"):
        calibrate(1, 0, *drawn(20), max_drop=-1)
