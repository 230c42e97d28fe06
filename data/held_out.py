"""A part of the training data held out to decide what is kept, where evaluation data can't."""

from __future__ import annotations

from collections.abc import Sized
from dataclasses import dataclass
from itertools import islice

from torch.utils.data import DataLoader, SequentialSampler

from ..core.model_io import Batches
from .subset import example_indices, part_of, permutation

SHARE = 0.1
MOST = 2048  # examples of a data set
FEWEST_BATCHES = 5


@dataclass(frozen=True)
class TrainHeldOut:
    """`apart`: nothing of `held_out` is in `train`. Other iterables can't be taken apart.

    `batches`: how many `train` has.
    """

    train: Batches
    held_out: Batches
    apart: bool
    batches: int


def hold_out(train: Batches, seed: int = 0) -> TrainHeldOut:
    """Examples that a DataLoader gives, batches of a list; else the first batches of a pass.

    Examples that its sampler leaves out are not used: they may be the evaluation data.
    """
    if isinstance(train, DataLoader) and _divisible(train):
        return _of_loader(train, seed)
    if isinstance(train, (list, tuple)) and len(train) >= FEWEST_BATCHES:
        count = max(1, round(SHARE * len(train)))
        return TrainHeldOut(train[:-count], train[-count:], True, len(train) - count)
    total = batches_in(train)
    first = list(islice(iter(train), max(1, round(2 * SHARE * total))))
    return TrainHeldOut(train, first, False, total)


def batches_in(train: Batches) -> int:
    """The number of batches in a pass; data that knows its length is not read for it."""
    return len(train) if isinstance(train, Sized) else sum(1 for _ in train)


def _divisible(loader: DataLoader[object]) -> bool:
    indices = example_indices(loader)
    return indices is not None and len(indices) >= FEWEST_BATCHES * (loader.batch_size or 1)


def _of_loader(loader: DataLoader[object], seed: int) -> TrainHeldOut:
    indices, size = example_indices(loader) or [], loader.batch_size or 1
    order = permutation(len(indices), seed)
    # Whole batches: a model of a fixed batch takes no others.
    count = size * max(1, round(min(MOST, SHARE * len(indices)) / size))
    shuffled = not isinstance(loader.sampler, SequentialSampler)
    train, held_out = ([indices[i] for i in part] for part in (order[count:], order[:count]))
    rest = part_of(loader, train, shuffled)
    return TrainHeldOut(rest, part_of(loader, held_out), True, len(rest))
