"""State dicts: checked, and put into the model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from ..core.errors import CheckpointError
from .differences import Differences
from .kinds import check_kinds
from .names import matched
from .tensors import unfit
from .wrappings import state_dicts_in


def state_dict_of(path: Path, held: Any) -> dict[str, Tensor]:
    """The finite tensors in `held` by name. Raises CheckpointError where there are none."""
    if not isinstance(held, Mapping):
        raise CheckpointError(f"`{path}` holds {type(held).__name__}, not a state dict.")
    weights = {str(k): v for k, v in held.items() if isinstance(v, Tensor)}
    if not weights and (several := state_dicts_in(held)):
        raise CheckpointError(
            f"`{path}` holds several state dicts: {_some(several)}; save the one to tune alone."
        )
    if not weights:
        keys = f"its keys are {_some(list(held))}" if held else "it is an empty state dict"
        raise CheckpointError(f"`{path}` holds no tensors; {keys}.")
    _check_plain(path, weights)
    check_finite(path, weights)
    return weights


def fill(path: Path, module: nn.Module, weights: Mapping[str, Tensor]) -> list[str]:
    """Load `weights` into `module`, every key and shape matched, and say what was left out.

    Raises CheckpointError with a table of the differences where they do not fit.
    """
    wanted = {k: v for k, v in module.state_dict().items() if isinstance(v, Tensor)}
    if lazy := next((k for k, v in wanted.items() if is_lazy(v)), None):
        raise CheckpointError(
            f"`{type(module).__name__}` has a lazy layer: `{lazy}` has no size yet; call the model "
            "once on an example in the factory before it is returned."
        )
    weights, notes = matched(path, weights, wanted)
    found = Differences(
        weights,
        wanted,
        tuple(k for k in wanted if k not in weights and not _optional(k, wanted, weights)),
        tuple(k for k in weights if k not in wanted),
        tuple(k for k in wanted if k in weights and weights[k].shape != wanted[k].shape),
    )
    if found:
        raise CheckpointError(found.text(path))
    check_kinds(path, weights, wanted)
    module.load_state_dict(dict(weights), strict=False)
    extra = [k for k, v in module.state_dict().items() if not isinstance(v, Tensor)]
    return [*notes, f"no tensors, so not read: {_some(extra)}"] if extra else notes


def _check_plain(path: Path, weights: Mapping[str, Tensor]) -> None:
    for name, tensor in weights.items():
        if kind := unfit(tensor):
            raise CheckpointError(
                f"`{path}`: `{name}` {kind}; only dense tensors of numbers can be tuned, so save "
                "the model's plain weights."
            )


def check_finite(path: Path, weights: Mapping[str, Any]) -> None:
    """Raises CheckpointError naming the first tensor that holds NaN or infinity."""
    bad = {k: n for k, v in weights.items() if isinstance(v, Tensor) and (n := _not_finite(v))}
    if bad:
        first = next(iter(bad))
        tensors = "1 tensor" if len(bad) == 1 else f"{len(bad)} tensors"
        raise CheckpointError(
            f"`{path}` holds NaN or infinity in {tensors}, first `{first}` ({bad[first]} of "
            f"{weights[first].numel()} values); a model that diverged can't be tuned."
        )


def _not_finite(tensor: Tensor) -> int:
    if not (tensor.is_floating_point() or tensor.is_complex()):
        return 0
    if tensor.is_floating_point() and tensor.element_size() == 1:
        tensor = tensor.float()  # torch has no isfinite for float8
    return int((~torch.isfinite(tensor)).sum())


def _optional(key: str, wanted: Mapping[str, Tensor], weights: Mapping[str, Tensor]) -> bool:
    """May the file lack `key`? Counters of old torch, and the second name of a tied weight."""
    if key.endswith("num_batches_tracked"):
        return True
    tensor = wanted[key]
    return tensor.numel() > 0 and any(
        other in weights and w.data_ptr() == tensor.data_ptr() and w.shape == tensor.shape
        for other, w in wanted.items()
        if other != key
    )


def _some(names: list[Any]) -> str:
    return ", ".join(f"`{n}`" for n in names[:3]) + (", ..." if len(names) > 3 else "")
