from __future__ import annotations

from typing import Any

import pytest
import torch
from modelspeed.core.errors import DataError
from modelspeed.profiling.accuracy import evaluate
from modelspeed.profiling.side_by_side import agreement, divergence
from torch import nn

EYE = torch.eye(6)


def same(x: torch.Tensor) -> torch.Tensor:
    return x


def test_accuracy_is_the_fraction_of_right_answers_over_unequal_batches() -> None:
    batches = [(EYE[:4], torch.tensor([0, 1, 2, 0])), (EYE[4:5], torch.tensor([4]))]
    assert evaluate(same, batches, "accuracy") == (0.8, 5)


def test_top5_accepts_any_of_the_five_best() -> None:
    scores = torch.tensor([[6.0, 5, 4, 3, 2, 1]]).repeat(2, 1)
    assert evaluate(same, [(scores, torch.tensor([4, 5]))], "top5") == (0.5, 2)


def test_errors_are_negated_so_that_higher_is_better() -> None:
    batches = [(torch.zeros(2, 3), torch.full((2, 3), 2.0))]
    assert evaluate(same, batches, "mse") == (-4.0, 2)
    assert evaluate(same, batches, "mae") == (-2.0, 2)


def test_a_function_may_be_the_metric_and_inputs_a_tuple() -> None:
    batches = [((torch.ones(2), torch.ones(2)), torch.zeros(2))]
    value, count = evaluate(lambda a, b: a + b, batches, lambda out, _: out.mean())
    assert (value, count) == (2.0, 2)


def test_the_mode_of_a_module_is_restored() -> None:
    module = nn.Sequential(nn.Linear(6, 6), nn.Dropout(0.5)).train()
    module[1].eval()
    batches = [(EYE, torch.arange(6))]
    assert evaluate(module, batches, "accuracy") == evaluate(module, batches, "accuracy")
    assert [m.training for m in module.modules()] == [True, True, False]


def test_an_exported_module_is_evaluated() -> None:
    torch.set_num_threads(1)
    module = torch.export.export(nn.Identity().eval(), (EYE,)).module()
    assert evaluate(module, [(EYE, torch.arange(6))], "accuracy") == (1.0, 6)


LABELS = torch.arange(6)


@pytest.mark.parametrize(
    ("batches", "metric", "sentence"),
    [
        ([], "accuracy", "empty"),
        ([(EYE[:0], LABELS[:0])], "accuracy", "empty"),
        (7, "accuracy", "iterable"),
        ([EYE], "accuracy", "Batch 0 is a tensor of shape"),
        ([(EYE, LABELS, 3)], "accuracy", "a tuple of 3"),
        ([(EYE, LABELS), {"x": EYE}], "accuracy", "Batch 1 is `dict`"),
        ([("x", LABELS)], "accuracy", "inputs hold `str`"),
        ([(EYE, None)], "accuracy", "targets are `NoneType`"),
        ([(EYE * float("nan"), LABELS)], "accuracy", "NaN"),
        ([(EYE, LABELS + 1)], "accuracy", "from 1 to 6.*6 classes"),
        ([(EYE, LABELS - 1)], "accuracy", "from -1 to 4"),
        ([(EYE, LABELS[:5])], "accuracy", "one row per example"),
        ([(EYE, LABELS.float())], "accuracy", "integer targets"),
        ([(EYE, LABELS.float())], "mse", "must be the same"),
        ([(EYE, LABELS)], "f1", "allowed are `accuracy`, `top5`, `mse`, `mae`"),
        ([(EYE, LABELS)], lambda o, t: o, "must return one number"),
        ([(EYE, LABELS)], lambda o, t: float("nan"), "metric returned NaN"),
    ],
)
def test_unusable_data_is_refused_with_what_was_found(
    batches: Any, metric: Any, sentence: str
) -> None:
    with pytest.raises(DataError, match=sentence):
        evaluate(same, batches, metric)


def test_inputs_the_model_refuses_are_named() -> None:
    with pytest.raises(DataError, match=r"refuses inputs \[6, 6\] float32"):
        evaluate(nn.Linear(3, 2), [(EYE, LABELS)], "accuracy")


def test_agreement_counts_equal_answers() -> None:
    swapped = EYE[[1, 0, 2, 3, 4, 5]]
    assert agreement(same, same, [(EYE, None)]) == 1.0
    assert agreement(same, lambda x: swapped, [(EYE, LABELS)]) == pytest.approx(4 / 6)
    assert agreement(same, lambda x: 2 * x, (EYE, EYE)) == 1.0, "scale does not change answers"


def test_agreement_of_other_outputs_is_one_minus_the_relative_error() -> None:
    x = torch.ones(2, 3, 4)
    assert agreement(same, lambda x: 0.9 * x, [x]) == pytest.approx(0.9)
    assert agreement(same, lambda x: -x, [x]) == 0.0


def test_agreement_needs_equal_shapes_and_data() -> None:
    with pytest.raises(DataError, match="must be the same"):
        agreement(same, lambda x: x[:, :3], [EYE])
    with pytest.raises(DataError, match="empty"):
        agreement(same, same, [])


def test_what_a_model_writes_into_its_inputs_stays_with_it() -> None:
    batches = [(torch.ones(4, 3) * torch.tensor([1.0, -2.0, 0.5]), torch.zeros(4).long())]
    before = batches[0][0].clone()

    def writes(x: torch.Tensor) -> torch.Tensor:
        return x.mul_(-3.0)

    assert agreement(writes, lambda x: x * -3.0, batches) == 1.0
    assert divergence(writes, lambda x: x * -3.0, batches) == 0.0
    assert evaluate(writes, batches, "accuracy") == evaluate(writes, batches, "accuracy")
    assert torch.equal(batches[0][0], before)
