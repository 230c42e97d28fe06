"""Data that lies on disk as train and eval loaders; which example is in which never changes."""

from __future__ import annotations

from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ..core.errors import DataError

SCATTER = 2654435761  # Knuth's multiplicative hash: spreads neighbors, the same on every machine
# Inputs, by keyword where they have names, and the target.
Example = tuple[Tensor | dict[str, Tensor], Tensor | int]
Loaders = tuple[DataLoader[Example], DataLoader[Example]]


def loaders(train: Dataset[Example], evaluation: Dataset[Example], batch: int) -> Loaders:
    """Shuffled batches to train on and batches in order to evaluate on."""
    return (
        DataLoader(train, batch_size=batch, shuffle=True),
        DataLoader(evaluation, batch_size=batch, shuffle=False),
    )


def split_indices(count: int, share: float, where: str) -> tuple[list[int], list[int]]:
    """Indices to train on and to evaluate on, both in order and neither empty."""
    if count < 2:
        raise DataError(f"{where} has {count} examples; to train and to evaluate takes 2 at least.")
    order = sorted(range(count), key=lambda i: (i + 1) * SCATTER % (1 << 32))
    evaluated = max(1, min(count - 1, round(share * count)))
    return sorted(order[evaluated:]), sorted(order[:evaluated])
