"""Data that takes pretended time to read, and counts it. The clock is that of limits of time."""

from __future__ import annotations

from collections import Counter

import torch
from modelspeed.profiling import gate
from torch.utils.data import DataLoader, Dataset

READ: Counter[str] = Counter()
ORDER: list[tuple[str, int]] = []  # the examples in the order in which they were read


def pass_time(seconds: float) -> None:
    """`gate.working()` goes on by that; it needs the variable of a gate's folder."""
    gate._own += seconds


class Costly(Dataset):
    """Images of `pico`'s nets in order of their classes, `seconds` each to read."""

    def __init__(self, part: str, count: int, seconds: float) -> None:
        self.part, self.count, self.seconds = part, count, seconds

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        READ[self.part] += 1
        ORDER.append((self.part, index))
        pass_time(self.seconds)
        random = torch.Generator().manual_seed(index)
        return torch.randn(1, 12, 12, generator=random), 3 * index // self.count


def loaders(
    train: int, evaluation: int, train_seconds: float, eval_seconds: float, batch: int = 8
) -> tuple[DataLoader, DataLoader]:
    return (
        DataLoader(Costly("train", train, train_seconds), batch_size=batch, shuffle=True),
        DataLoader(Costly("eval", evaluation, eval_seconds), batch_size=batch),
    )
