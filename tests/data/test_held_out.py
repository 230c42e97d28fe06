from __future__ import annotations

import torch
from modelspeed.data.held_out import hold_out
from torch.utils.data import DataLoader, SubsetRandomSampler, TensorDataset, WeightedRandomSampler


def rows(batches):
    return sorted(int(x) for inputs, _ in batches for x in inputs)


def test_a_loaders_examples_are_taken_apart_and_stay_shuffled():
    numbers = torch.arange(100)
    loader = DataLoader(TensorDataset(numbers, numbers), batch_size=8, shuffle=True)
    parts = hold_out(loader)
    assert parts.apart and len(rows(parts.held_out)) == 8  # a tenth, in whole batches
    assert sorted(rows(parts.train) + rows(parts.held_out)) == list(range(100))
    orders = [[int(x) for inputs, _ in parts.train for x in inputs] for _ in range(2)]
    assert orders[0] != orders[1]


def test_what_a_sampler_leaves_out_is_used_for_nothing():
    data = TensorDataset(torch.arange(100), torch.arange(100))
    parts = hold_out(DataLoader(data, batch_size=4, sampler=SubsetRandomSampler(range(80))))
    assert parts.apart and sorted(rows(parts.train) + rows(parts.held_out)) == list(range(80))
    weighted = DataLoader(data, batch_size=4, sampler=WeightedRandomSampler([1.0] * 100, 20))
    assert not hold_out(weighted).apart and hold_out(weighted).train is weighted


def test_a_loader_that_drops_the_rest_gives_whole_batches_only():
    data = TensorDataset(torch.arange(203), torch.arange(203))
    parts = hold_out(DataLoader(data, batch_size=8, drop_last=True))
    assert {len(x) for part in (parts.train, parts.held_out) for x, _ in part} == {8}


def test_too_few_batches_are_not_taken_apart():
    data = TensorDataset(torch.arange(64), torch.arange(64))
    parts = hold_out(DataLoader(data, batch_size=64, shuffle=True, drop_last=True))
    assert not parts.apart and len(rows(parts.train)) == len(rows(parts.held_out)) == 64


def test_a_list_of_batches_is_cut():
    batches = [(torch.tensor([i]), torch.tensor([i])) for i in range(20)]
    parts = hold_out(batches)
    assert parts.apart and rows(parts.held_out) == [18, 19] and rows(parts.train) == list(range(18))


def test_what_can_only_be_iterated_is_not_taken_apart():
    class Endless:
        def __iter__(self):
            return iter([(torch.tensor([i]), torch.tensor([i])) for i in range(3)])

    parts = hold_out(Endless())
    assert not parts.apart and rows(parts.held_out) == [0] and rows(parts.train) == [0, 1, 2]
