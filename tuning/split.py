"""A part of the training data held out to decide what is kept; never the evaluation data."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch
from torch.utils.data import DataLoader, RandomSampler, Subset

from ..adjusters.plan import Batches

SHARE = 0.1
MOST = 2048  # examples of a data set
FEWEST_BATCHES = 5


@dataclass(frozen=True)
class Split:
    """`apart`: nothing of `held` is in `train`. Other iterables can't be taken apart."""

    train: Batches
    held: Batches
    apart: bool


def split(train: Any, seed: int = 0) -> Split:
    """Examples of a DataLoader's data set, batches of a list; else the first batches of a pass."""
    if isinstance(train, DataLoader) and _divisible(train):
        return _of_loader(train, seed)
    if isinstance(train, (list, tuple)) and len(train) >= FEWEST_BATCHES:
        count = max(1, round(SHARE * len(train)))
        return Split(train[:-count], train[-count:], True)
    total = sum(1 for _ in train)
    return Split(train, list(islice(iter(train), max(1, round(2 * SHARE * total)))), False)


def _divisible(loader: DataLoader[Any]) -> bool:
    return (
        loader.batch_size is not None
        and hasattr(loader.dataset, "__len__")
        and hasattr(loader.dataset, "__getitem__")
        and len(loader.dataset) >= 2 * FEWEST_BATCHES
    )


def _of_loader(loader: DataLoader[Any], seed: int) -> Split:
    total = len(loader.dataset)  # type: ignore[arg-type]
    order = torch.randperm(total, generator=torch.Generator().manual_seed(seed)).tolist()
    count = max(1, min(MOST, round(SHARE * total)))

    def part(rows: list[int], shuffle: bool) -> DataLoader[Any]:
        return DataLoader(
            Subset(loader.dataset, rows),
            batch_size=loader.batch_size,
            shuffle=shuffle,
            num_workers=loader.num_workers,
            collate_fn=loader.collate_fn,
            pin_memory=loader.pin_memory,
            drop_last=loader.drop_last and shuffle,
        )

    shuffled = isinstance(loader.sampler, RandomSampler)
    return Split(part(order[count:], shuffled), part(order[:count], False), True)
