"""`arrays:FILE`: inputs and targets as arrays in an .npz or .safetensors file."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from ..checkpoints.shards import load_safetensors
from ..configs.recipe import DataSpec
from ..core.errors import CheckpointError, DataError
from .loaders import Example, Loaders, loaders, split_indices

NAMES = "`inputs` (or `inputs.KEYWORD`), `targets`, and perhaps `eval_inputs` and `eval_targets`"
EVAL = "eval_"
KNOWN = re.compile(rf"(?:{EVAL})?(?:inputs(?:\..+)?|targets)")


class Examples(Dataset[Example]):
    """Rows of arrays. Inputs are one tensor, or tensors by keyword."""

    def __init__(self, inputs: dict[str, Tensor], targets: Tensor, indices: list[int]) -> None:
        self.inputs, self.targets, self.indices = inputs, targets, indices

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> Example:
        row = self.indices[index]
        inputs = {name: values[row] for name, values in self.inputs.items()}
        return inputs[""] if "" in inputs else inputs, self.targets[row]


def array_loaders(spec: DataSpec, path: Path) -> Loaders:
    """Raises DataError where the file can't be read or holds something else."""
    tensors = _tensors(path)
    inputs, targets = _part(path, tensors, "")
    strange = next((name for name in tensors if not KNOWN.fullmatch(name)), None)
    if strange is not None:
        raise DataError(f"`{path}` holds `{strange}`; allowed are {NAMES}.")
    if any(name.startswith(EVAL) for name in tensors):
        other = _part(path, tensors, EVAL)
        if other[0].keys() != inputs.keys():
            raise DataError(
                f"`{path}`: `{EVAL}inputs` must have the keywords of `inputs`; found "
                f"{_names(other[0])} and {_names(inputs)}."
            )
        train = Examples(inputs, targets, list(range(len(targets))))
        return loaders(train, Examples(*other, list(range(len(other[1])))), spec.batch)
    rest, out = split_indices(len(targets), spec.share, f"`{path}`")
    return loaders(Examples(inputs, targets, rest), Examples(inputs, targets, out), spec.batch)


def _part(path: Path, tensors: dict[str, Tensor], prefix: str) -> tuple[dict[str, Tensor], Tensor]:
    start = f"{prefix}inputs"
    inputs = {k[len(start) + 1 :]: v for k, v in tensors.items()
              if k == start or k.startswith(f"{start}.")}  # fmt: skip
    targets = tensors.get(f"{prefix}targets")
    if not inputs or targets is None:
        names = ", ".join(f"`{k}`" for k in list(tensors)[:6]) or "nothing"
        raise DataError(f"`{path}` holds {names}; it must hold {NAMES}.")
    if "" in inputs and len(inputs) > 1:
        raise DataError(f"`{path}` holds `{start}` and `{start}.KEYWORD`; keep one form.")
    for name, values in inputs.items():
        if not values.dim() or not targets.dim() or len(values) != len(targets):
            shown = f"{start}.{name}" if name else start
            raise DataError(
                f"`{path}`: `{shown}` has the shape {list(values.shape)} and `{prefix}targets` "
                f"{list(targets.shape)}; both must have one row per example."
            )
    return inputs, targets


def _names(inputs: dict[str, Tensor]) -> str:
    return ", ".join(f"`{name}`" if name else "none" for name in inputs)


def _tensors(path: Path) -> dict[str, Tensor]:
    """float64 becomes float32; whole numbers keep their kind, targets are int64."""
    if path.suffix == ".safetensors":
        try:
            arrays = load_safetensors(path)
        except CheckpointError as error:
            raise DataError(str(error)) from error
    else:
        arrays = _npz(path)
    return {k: _usual(k, v) for k, v in arrays.items()}


def _npz(path: Path) -> dict[str, Tensor]:
    try:
        with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
            arrays = {k: file[k] for k in file.files}
        return {k: torch.from_numpy(v) for k, v in arrays.items()}
    except Exception as error:  # numpy, zipfile and zlib each have their own
        reason = getattr(error, "strerror", None) or str(error).strip().split("\n", 1)[0]
        raise DataError(f"`{path}` can't be read as .npz: {reason.rstrip('.')}.") from error


def _usual(name: str, values: Tensor) -> Tensor:
    if values.dtype == torch.float64:
        return values.float()
    whole = not values.is_floating_point() and values.dtype != torch.bool
    return values.long() if whole and name.endswith("targets") else values
