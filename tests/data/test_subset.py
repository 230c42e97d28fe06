"""Parts of data: at random where that can be, and never more than was asked for."""

from __future__ import annotations

import pytest
import torch
from modelspeed.core.errors import DataError
from modelspeed.data.subset import FirstBatches, Pinned, examples_in, in_random_order
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

SORTED = TensorDataset(torch.arange(100.0)[:, None], torch.arange(100) // 25)


def labels(batches):
    return torch.cat([targets for _, targets in batches])


@pytest.mark.parametrize("shuffle", [False, True])
def test_the_first_examples_of_sorted_data_are_of_every_class(shuffle):
    ordered = in_random_order(DataLoader(SORTED, batch_size=8, shuffle=shuffle), seed=3)
    assert ordered.total == 100 and ordered.at_random
    first = labels(FirstBatches(ordered.batches, 32))
    assert len(first) == 32 and set(first.tolist()) == {0, 1, 2, 3}
    assert torch.equal(first, labels(FirstBatches(ordered.batches, 32)))
    assert sorted(labels(ordered.batches).tolist()) == SORTED.tensors[1].tolist()


def test_batches_of_a_list_come_in_another_order_and_what_is_drawn_by_others_does_not():
    batches = [(torch.zeros(2, 1), torch.tensor([i, i])) for i in range(20)]
    ordered = in_random_order(batches, seed=0)
    assert ordered.total == 40 and not torch.equal(labels(ordered.batches), labels(batches))

    class Stream(IterableDataset):
        def __iter__(self):
            yield from SORTED

    given = DataLoader(Stream(), batch_size=10)
    assert in_random_order(given, 0).batches is given and in_random_order(given, 0).total is None


def test_a_deadline_ends_a_pass_after_one_batch_at_least():
    now = [0.0]

    def slow():
        for batch in DataLoader(SORTED, batch_size=10):
            now[0] += 5.0
            yield batch

    assert len(list(FirstBatches(slow(), deadline=12.0, clock=lambda: now[0]))) == 3
    assert len(list(FirstBatches(slow(), deadline=0.0, clock=lambda: now[0]))) == 1


def test_what_is_pinned_stays_what_it_is_within_its_bytes():
    loader = DataLoader(SORTED, batch_size=10)
    assert [len(t) for _, t in Pinned(loader, 25)] == [10, 10, 10]
    size = sum(x.nbytes for x in next(iter(loader)))
    assert len(Pinned(loader, 100, least=20, limit=2 * size).kept) == 2
    assert Pinned(loader, 100, least=30, limit=2 * size).kept is None
    assert len(list(Pinned(loader, 45, least=30, limit=2 * size))) == 5
    random = Pinned([(torch.zeros(2, 1), torch.zeros(2))] * 3, 4)
    assert next(iter(random))[0] is next(iter(random))[0]
    with pytest.raises(DataError, match="Batch 1 is `dict`"):
        list(Pinned([next(iter(loader)), {}], 100))
    assert examples_in({}) == 0
