"""Data that lies on disk as train and eval loaders; which example is in which never changes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ..checkpoints.samples import batch_axis
from ..core.errors import DataError
from ..core.json_values import JsonObject

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


class Collated:
    """A loader's own batches, the examples along the axes that the model's inputs have them."""

    def __init__(self, collate: Callable[[list[Example]], Any], takes: Sequence[JsonObject]):
        self.collate = collate
        self.axes = {str(spec.get("name") or ""): batch_axis(spec) for spec in takes}

    def __call__(self, examples: list[Example]) -> Any:
        inputs, targets = self.collate(examples)
        if isinstance(inputs, dict):
            return {name: self._laid(x, name) for name, x in inputs.items()}, targets
        return self._laid(inputs, ""), targets

    def _laid(self, x: Tensor, name: str) -> Tensor:
        axis = self.axes.get(name, 0)
        return x[0] if axis is None else x.movedim(0, axis)


def lay_out(loader: DataLoader[Example], takes: Sequence[JsonObject]) -> None:
    """Let `loader` give batches as inputs `takes` have them, where that is not axis by axis."""
    if any(batch_axis(spec) != 0 for spec in takes):
        loader.collate_fn = Collated(loader.collate_fn, takes)


def split_indices(count: int, share: float, where: str) -> tuple[list[int], list[int]]:
    """Indices to train on and to evaluate on, both in order and neither empty."""
    if count < 2:
        raise DataError(f"{where} has {count} examples; to train and to evaluate takes 2 at least.")
    order = sorted(range(count), key=lambda i: (i + 1) * SCATTER % (1 << 32))
    evaluated = max(1, min(count - 1, round(share * count)))
    return sorted(order[evaluated:]), sorted(order[:evaluated])
