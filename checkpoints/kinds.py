"""Kinds of numbers: filling a tensor from another kind would lose a part without a word."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from ..core.errors import CheckpointError

COUNTER = "num_batches_tracked"  # becomes a float where a whole state dict was cast
MASKS = {torch.bool, torch.uint8}  # masks were bytes before torch had booleans


def check_kinds(path: Path, weights: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> None:
    """Raises CheckpointError where a kind of number would fill another and lose a part."""
    wrong = [n for n, v in weights.items() if n in wanted and not _alike(n, v, wanted[n])]
    if wrong:
        first = wrong[0]
        more = f", and {len(wrong) - 1} more differ so" if len(wrong) > 1 else ""
        raise CheckpointError(
            f"`{path}` does not fit the model: `{first}` is {_name(weights[first])} in the file "
            f"and {_name(wanted[first])} in the model{more}; save the weights in the model's own "
            "kind of number."
        )


def _alike(name: str, stored: Tensor, wanted: Tensor) -> bool:
    return (
        _kind(stored) == _kind(wanted)
        or {stored.dtype, wanted.dtype} == MASKS
        or name.endswith(COUNTER)
    )


def _kind(tensor: Tensor) -> str:
    if tensor.is_complex():
        return "complex"
    if tensor.is_floating_point():
        return "float"
    return "bool" if tensor.dtype == torch.bool else "integer"


def _name(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")
