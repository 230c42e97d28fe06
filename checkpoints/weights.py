"""State dicts: common wrappings taken off, checked, put into the model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..core.errors import CheckpointError

WRAPPERS = ("state_dict", "model_state_dict", "model")
PREFIXES = ("_orig_mod.", "module.")


def unwrap_model(held: Any) -> Any:
    """The innermost thing under the usual wrapper keys: a state dict, or a pickled module."""
    while isinstance(held, Mapping):
        inner = [held[w] for w in WRAPPERS if isinstance(held.get(w), (Mapping, nn.Module))]
        if not inner:
            break
        held = inner[0]
    return held


def state_dict_of(path: Path, held: Any) -> dict[str, Tensor]:
    """The finite tensors inside `held` by name. Raises CheckpointError where there are none."""
    held = unwrap_model(held)
    if not isinstance(held, Mapping):
        raise CheckpointError(f"`{path}` holds {type(held).__name__}, not a state dict.")
    weights = {str(k): v for k, v in held.items() if isinstance(v, Tensor)}
    if not weights:
        keys = f"its keys are {_some(list(held))}" if held else "it is an empty state dict"
        raise CheckpointError(f"`{path}` holds no tensors; {keys}.")
    check_finite(path, weights)
    return weights


def fill(path: Path, module: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Load `weights` into `module`, every key and shape matched. Raises CheckpointError if not."""
    wanted = module.state_dict()
    weights = _without_prefixes(weights, wanted)
    missing = [k for k in wanted if k not in weights and not _optional(k, wanted, weights)]
    unexpected = [k for k in weights if k not in wanted]
    shapes = [
        f"`{k}` is {tuple(weights[k].shape)}, the model wants {tuple(wanted[k].shape)}"
        for k in wanted
        if k in weights and weights[k].shape != wanted[k].shape
    ]
    parts = []
    if missing:
        parts.append(f"{len(missing)} missing ({_some(missing)}{_missing_why(unexpected)})")
    if unexpected:
        parts.append(f"{len(unexpected)} unexpected ({_some(unexpected)}{_extra_why(missing)})")
    if shapes:
        more = "; ..." if len(shapes) > 3 else ""
        parts.append(
            f"{len(shapes)} of another shape ({'; '.join(shapes[:3])}{more}: likely other factory "
            "arguments, such as width or number of classes)"
        )
    if parts:
        raise CheckpointError(f"`{path}` does not fit the model: {', '.join(parts)}.")
    module.load_state_dict(dict(weights), strict=False)


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


def _without_prefixes(
    weights: Mapping[str, Tensor], wanted: Mapping[str, Tensor]
) -> Mapping[str, Tensor]:
    """Take off what DDP and torch.compile put in front, in any order, but not the model's own."""
    while not any(k in wanted for k in weights):
        prefix = next((p for p in PREFIXES if all(k.startswith(p) for k in weights)), None)
        if prefix is None:
            break
        weights = {k.removeprefix(prefix): v for k, v in weights.items()}
    return weights


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


def _missing_why(unexpected: list[str]) -> str:
    if unexpected:
        return ": likely another class, or a part was renamed"
    return ": likely only a part of the model was saved"


def _extra_why(missing: list[str]) -> str:
    return "" if missing else ": likely the model was built without a head or option it had"


def _some(names: list[Any]) -> str:
    return ", ".join(f"`{n}`" for n in names[:3]) + (", ..." if len(names) > 3 else "")
