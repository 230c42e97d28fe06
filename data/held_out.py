"""A part of the training data held out to decide what is kept; never the evaluation data."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice

import torch
from torch.utils.data import (
    DataLoader,
    RandomSampler,
    SequentialSampler,
    Subset,
    SubsetRandomSampler,
)

from ..core.model_io import Batches

SHARE = 0.1
MOST = 2048  # examples of a data set
FEWEST_BATCHES = 5


@dataclass(frozen=True)
class TrainHeldOut:
    """`apart`: nothing of `held_out` is in `train`. Other iterables can't be taken apart."""

    train: Batches
    held_out: Batches
    apart: bool


def hold_out(train: Batches, seed: int = 0) -> TrainHeldOut:
    """Examples that a DataLoader gives, batches of a list; else the first batches of a pass.

    Examples that its sampler leaves out are not used: they may be the evaluation data.
    """
    if isinstance(train, DataLoader) and _divisible(train):
        return _of_loader(train, seed)
    if isinstance(train, (list, tuple)) and len(train) >= FEWEST_BATCHES:
        count = max(1, round(SHARE * len(train)))
        return TrainHeldOut(train[:-count], train[-count:], True)
    total = sum(1 for _ in train)
    return TrainHeldOut(train, list(islice(iter(train), max(1, round(2 * SHARE * total)))), False)


def _divisible(loader: DataLoader[object]) -> bool:
    return (
        loader.batch_size is not None
        and hasattr(loader.dataset, "__len__")
        and hasattr(loader.dataset, "__getitem__")
        and _sample_indices(loader) is not None
        and len(_sample_indices(loader) or ()) >= FEWEST_BATCHES * loader.batch_size
    )


def _sample_indices(loader: DataLoader[object]) -> list[int] | None:
    """The examples that the loader's sampler gives, None where another one decides that."""
    sampler = loader.sampler
    if isinstance(sampler, SubsetRandomSampler):
        return [int(i) for i in sampler.indices]
    if type(sampler) is SequentialSampler or (
        type(sampler) is RandomSampler
        and not sampler.replacement
        and sampler.num_samples == len(loader.dataset)  # type: ignore[arg-type]
    ):
        return list(range(len(loader.dataset)))  # type: ignore[arg-type]
    return None


def _of_loader(loader: DataLoader[object], seed: int) -> TrainHeldOut:
    indices, size = _sample_indices(loader) or [], loader.batch_size or 1
    order = torch.randperm(len(indices), generator=torch.Generator().manual_seed(seed)).tolist()
    # Whole batches: a model of a fixed batch takes no others.
    count = size * max(1, round(min(MOST, SHARE * len(indices)) / size))

    def part(chosen: list[int], shuffle: bool) -> DataLoader[object]:
        return DataLoader(
            Subset(loader.dataset, [indices[i] for i in chosen]),
            batch_size=loader.batch_size,
            shuffle=shuffle,
            num_workers=loader.num_workers,
            collate_fn=loader.collate_fn,
            pin_memory=loader.pin_memory,
            drop_last=loader.drop_last,
        )

    shuffled = not isinstance(loader.sampler, SequentialSampler)
    return TrainHeldOut(part(order[count:], shuffled), part(order[:count], False), True)
