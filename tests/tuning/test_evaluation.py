"""Each model runs on each batch at most once, and on no more than the answer takes."""

from __future__ import annotations

import pytest
import torch
from modelspeed.core.errors import DataError
from modelspeed.data.load import Data
from modelspeed.profiling.side_by_side import divergence
from modelspeed.tuning.evaluation import Evaluation
from torch import nn

BATCH = 16


class Counted(nn.Module):
    """Right about a share of the examples, whose input is the class and a number from 0 to 1."""

    def __init__(self, right):
        super().__init__()
        self.right, self.calls = right, 0

    def forward(self, x):
        self.calls += 1
        wrong = (x[:, 1] >= self.right).long()
        return 4.0 * nn.functional.one_hot((x[:, 0].long() + wrong) % 3, 3).float()


def batches(count, seed=0):
    random = torch.Generator().manual_seed(seed)
    rows = []
    for _ in range(count):
        targets = torch.randint(3, (BATCH,), generator=random)
        chance = torch.rand(BATCH, generator=random)
        rows.append((torch.stack([targets.float(), chance], 1), targets))
    return rows


def evaluation(original, metric="accuracy", count=100, decided_on=1600, scored_on=128):
    held = batches(20, 1)
    data = Data(batches(4), held, held[:2], batches(count), metric, "accuracy")
    return Evaluation.of(data, original, "cpu", 0, decided_on, scored_on)


def test_a_plain_case_is_decided_on_a_few_examples_and_no_model_runs_twice_on_one():
    original, worse = Counted(1.0), Counted(0.6)
    sample = evaluation(original).on_the_way
    drop = sample.drop(original, worse, 0.01)
    assert drop.above and 0.25 < drop.before - drop.after < 0.55
    assert drop.examples < 400 and original.calls == worse.calls == drop.examples // BATCH
    again = sample.drop(original, worse, 0.01)
    assert again == drop and original.calls == worse.calls == drop.examples // BATCH
    sample.drop(original, Counted(0.5), 0.01)
    assert original.calls == drop.examples // BATCH


def test_what_stays_open_is_decided_by_all_of_the_sample_and_no_more():
    original, near = Counted(0.93), Counted(0.92)
    drop = evaluation(original, decided_on=480).on_the_way.drop(original, near, 0.01)
    assert drop.examples == 480 == BATCH * near.calls
    assert drop.above == (drop.before - drop.after > 0.01 + 1e-9)
    assert drop.where == "on 480 examples"


def test_the_same_model_loses_nothing():
    original, same = Counted(0.93), Counted(0.93)
    drop = evaluation(original).on_the_way.drop(original, same, 0.01)
    assert not drop.above and drop.before == drop.after and drop.examples <= 640


def test_a_metric_of_the_whole_takes_the_sample_whole():
    class Worst:
        def reset(self):
            self.seen = []

        def add(self, outputs, targets):
            self.seen.append(float((outputs.argmax(1) == targets).float().mean()))

        def result(self):
            return min(self.seen)

    original, worse = Counted(1.0), Counted(0.5)
    drop = evaluation(original, Worst(), decided_on=320).on_the_way.drop(original, worse, 0.01)
    assert drop.above and drop.before == 1.0 and drop.examples == 320
    assert worse.calls == 20


def test_a_candidate_takes_one_forward_a_batch_and_the_original_one_in_all():
    original = Counted(1.0)
    held = evaluation(original).held_out
    start = held.score(None)
    assert start.score == 1.0 and start.divergence == 0.0 and original.calls == 8
    for right in (0.9, 0.5):
        candidate = Counted(right)
        found = held.score(candidate)
        assert candidate.calls == 8 and original.calls == 8
        expected = divergence(Counted(1.0), Counted(right), list(held.batches))
        assert found.divergence == pytest.approx(expected)
        assert abs(found.score - right) < 0.15


def test_outputs_that_take_too_much_memory_are_made_again(monkeypatch):
    from modelspeed.tuning import evaluation as room

    monkeypatch.setattr(room, "OUTPUT_BYTES", 3 * BATCH * 3 * 4)
    original, candidate = Counted(1.0), Counted(0.5)
    held = evaluation(original).held_out
    held.score(None)
    found = held.score(candidate)
    assert original.calls == 8 + 5 and candidate.calls == 8
    expected = divergence(Counted(1.0), Counted(0.5), list(held.batches))
    assert found.divergence == pytest.approx(expected)


def test_a_deadline_ends_a_decision_that_is_still_open():
    original, near = Counted(0.93), Counted(0.92)
    drop = evaluation(original).on_the_way.drop(original, near, 0.01, deadline=0.0)
    assert drop.examples == BATCH


class Rare:
    """Undefined where fewer than `least` examples were seen."""

    least = 400

    def reset(self):
        self.right = self.count = 0

    def add(self, outputs, targets):
        self.right += int((outputs.argmax(1) == targets).sum())
        self.count += len(targets)

    def result(self):
        return self.right / self.count if self.count >= self.least else float("nan")


class Strict(Rare):
    def result(self):
        if self.count < self.least:
            raise ValueError("Only one class present in y_true.")
        return super().result()


@pytest.mark.parametrize("metric", [Rare, Strict])
def test_a_metric_that_says_nothing_about_a_sample_leaves_a_drop_unknown(metric):
    original, worse = Counted(1.0), Counted(0.5)
    sample = evaluation(original, metric(), decided_on=320).on_the_way
    assert sample.drop(original, worse, 0.01) is None
    assert sample.drop(original, worse, 0.01) is None and worse.calls == 20
    whole = evaluation(original, metric(), decided_on=480).on_the_way
    assert whole.drop(original, worse, 0.01).above


def test_what_a_model_fails_with_is_not_taken_for_an_undefined_metric():
    class Broken(nn.Module):
        def forward(self, x):
            return torch.full((len(x), 3), torch.nan)

    sample = evaluation(Counted(1.0), Rare(), decided_on=320).on_the_way
    with pytest.raises(DataError, match="hold NaN"):
        sample.drop(Counted(1.0), Broken(), 0.01)


def test_candidates_are_scored_on_all_held_out_data_where_a_sample_of_it_says_nothing(monkeypatch):
    monkeypatch.setattr(Rare, "least", 200)
    held = evaluation(Counted(1.0), Rare()).held_out
    assert held.score(None).score == 1.0 and abs(held.score(Counted(0.5)).score - 0.5) < 0.15
    assert sum(len(targets) for _, targets in held.batches) == 20 * BATCH


def test_infinite_scores_are_infinitely_far_apart():
    def infinite(x):
        return torch.tensor([[torch.inf, 0.0, 0.0]]).expand(len(x), 3)

    assert divergence(infinite, infinite, batches(1)) == float("inf")


def test_masked_classes_are_no_distance():
    def masked(x):
        return torch.tensor([[0.0, 1.0, -torch.inf]]).expand(len(x), 3)

    assert divergence(masked, masked, batches(1)) == 0.0
    assert divergence(lambda x: torch.zeros(len(x), 3), masked, batches(1)) == float("inf")
