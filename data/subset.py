"""A part of data that stands for all of it: at random where the data can be divided."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import (
    DataLoader,
    RandomSampler,
    SequentialSampler,
    Subset,
    SubsetRandomSampler,
)

from ..core.model_io import Batches, Inputs
from ..profiling.accuracy import split_batch
from ..profiling.gate import working

PINNED_BYTES = 256 << 20


@dataclass(frozen=True)
class Shuffled:
    """All examples in a fixed random order; in their own where they can't be taken apart.

    `total`: how many there are, None where only a pass tells.
    """

    batches: Batches
    total: int | None
    at_random: bool


@dataclass
class FirstBatches:
    """The first batches of a pass: up to `examples` of them, until `clock()` says `deadline`.

    Of whatever the deadline is, one batch is given. `late`: it ended the last pass.
    """

    batches: Batches
    examples: float = float("inf")
    deadline: float = float("inf")
    clock: Callable[[], float] = working
    late: bool = field(default=False, init=False)

    def __iter__(self) -> Iterator[tuple[Any, Tensor]]:
        given, self.late = 0, False
        for batch in self.batches:
            yield batch
            given += examples_in(batch)
            if given >= self.examples:
                return
            if self.clock() >= self.deadline:
                self.late = True
                return

    def from_now(self, seconds: float) -> FirstBatches:
        """The same batches, with a deadline in so many seconds."""
        return replace(self, deadline=self.clock() + seconds)

    @property
    def seconds(self) -> float:
        """Time until the deadline."""
        return self.deadline - self.clock()


def in_random_order(batches: Any, seed: int) -> Shuffled:
    """Examples of a DataLoader, batches of a list; others are given as they come.

    The first of them are then a fair sample of all: images of a folder are sorted by class.
    """
    if isinstance(batches, DataLoader) and (indices := example_indices(batches)) is not None:
        order = permutation(len(indices), seed)
        lost = len(indices) % (batches.batch_size or 1) if batches.drop_last else 0
        part = part_of(batches, [indices[i] for i in order])
        return Shuffled(part, len(indices) - lost, True)
    if isinstance(batches, (list, tuple)):
        order = permutation(len(batches), seed)
        total = sum(map(examples_in, batches))
        return Shuffled([batches[i] for i in order], total, True)
    return Shuffled(batches, None, False)


def is_divisible(batches: Any) -> bool:
    """True if a part of it can be read without the rest."""
    return isinstance(batches, DataLoader) and example_indices(batches) is not None


def example_indices(loader: DataLoader[Any]) -> list[int] | None:
    """The examples that the loader gives, None where others decide that or it has no places."""
    dataset, sampler = loader.dataset, loader.sampler
    if loader.batch_size is None or not (
        hasattr(dataset, "__len__") and hasattr(dataset, "__getitem__")
    ):
        return None
    if isinstance(sampler, SubsetRandomSampler):
        return [int(i) for i in sampler.indices]
    if type(sampler) is SequentialSampler or (
        type(sampler) is RandomSampler
        and not sampler.replacement
        and sampler.num_samples == len(dataset)
    ):
        return list(range(len(dataset)))
    return None


def part_of(loader: DataLoader[Any], indices: list[int], shuffle: bool = False) -> DataLoader[Any]:
    """A loader of these examples that is otherwise like the one given."""
    return DataLoader(
        Subset(loader.dataset, indices),
        batch_size=loader.batch_size,
        shuffle=shuffle,
        num_workers=loader.num_workers,
        collate_fn=loader.collate_fn,
        pin_memory=loader.pin_memory,
        drop_last=loader.drop_last,
    )


def permutation(count: int, seed: int) -> list[int]:
    order: list[int] = torch.randperm(count, generator=torch.Generator().manual_seed(seed)).tolist()
    return order


@dataclass
class Pinned:
    """Up to so many examples, read once and in memory from then on, where `least` of them fit.

    They stay what they are, also where a data set draws its examples' crops again at each pass.
    """

    batches: Batches
    examples: int
    least: int = 1
    limit: int = PINNED_BYTES

    def __iter__(self) -> Iterator[tuple[Any, Tensor]]:
        yield from FirstBatches(self.batches, self.examples) if self.kept is None else self.kept

    @cached_property
    def kept(self) -> list[tuple[Any, Tensor]] | None:
        """All of them; None where they are read in each pass."""
        kept: list[tuple[Any, Tensor]] = []
        count = size = 0
        for index, batch in enumerate(FirstBatches(self.batches, self.examples)):
            inputs, targets = split_batch(batch, index)
            size += sum(x.nbytes for x in (*Inputs.of(inputs), targets) if isinstance(x, Tensor))
            if size > self.limit:
                return kept if count >= self.least else None
            kept.append((inputs, targets))
            count += len(targets)
        return kept


def examples_in(batch: Any) -> int:
    """Examples of (inputs, targets); 0 where it is something else, which its reader refuses."""
    targets = batch[1] if isinstance(batch, (tuple, list)) and len(batch) == 2 else None
    return len(targets) if isinstance(targets, Tensor) and targets.dim() else 0
