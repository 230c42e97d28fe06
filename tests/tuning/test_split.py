from __future__ import annotations

import torch
from modelspeed.tuning.split import split
from torch.utils.data import DataLoader, TensorDataset


def rows(batches):
    return sorted(int(x) for inputs, _ in batches for x in inputs)


def test_a_loaders_examples_are_taken_apart_and_stay_shuffled():
    numbers = torch.arange(100)
    loader = DataLoader(TensorDataset(numbers, numbers), batch_size=8, shuffle=True)
    parts = split(loader)
    assert parts.apart and len(rows(parts.held)) == 10
    assert sorted(rows(parts.train) + rows(parts.held)) == list(range(100))
    orders = [[int(x) for inputs, _ in parts.train for x in inputs] for _ in range(2)]
    assert orders[0] != orders[1]


def test_a_list_of_batches_is_cut():
    batches = [(torch.tensor([i]), torch.tensor([i])) for i in range(20)]
    parts = split(batches)
    assert parts.apart and rows(parts.held) == [18, 19] and rows(parts.train) == list(range(18))


def test_what_can_only_be_iterated_is_not_taken_apart():
    class Endless:
        def __iter__(self):
            return iter([(torch.tensor([i]), torch.tensor([i])) for i in range(3)])

    parts = split(Endless())
    assert not parts.apart and rows(parts.held) == [0] and rows(parts.train) == [0, 1, 2]
