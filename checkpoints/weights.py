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


def unwrap(path: Path, held: Any) -> dict[str, Tensor]:
    """The state dict inside `held`, without the prefixes of DDP and torch.compile."""
    for wrapper in WRAPPERS:
        if isinstance(held, Mapping) and isinstance(held.get(wrapper), Mapping):
            held = held[wrapper]
    if not isinstance(held, Mapping):
        raise CheckpointError(f"`{path}` holds {type(held).__name__}, not a state dict.")
    weights = {str(k): v for k, v in held.items() if isinstance(v, Tensor)}
    if not weights:
        raise CheckpointError(f"`{path}` holds no tensors; its keys are {_some(list(held))}.")
    for prefix in PREFIXES:
        if all(k.startswith(prefix) for k in weights):
            weights = {k.removeprefix(prefix): v for k, v in weights.items()}
    return weights


def fill(path: Path, module: nn.Module, held: Any) -> None:
    """Load `held` into `module`, every key and shape matched. Raises CheckpointError otherwise."""
    weights = unwrap(path, held)
    check_finite(path, weights)
    wanted = module.state_dict()
    missing = [k for k in wanted if k not in weights]
    unexpected = [k for k in weights if k not in wanted]
    shapes = [
        f"{k} is {tuple(weights[k].shape)}, the model wants {tuple(wanted[k].shape)}"
        for k in wanted
        if k in weights and weights[k].shape != wanted[k].shape
    ]
    parts = []
    if missing:
        parts.append(f"{len(missing)} missing ({_some(missing)})")
    if unexpected:
        parts.append(f"{len(unexpected)} unexpected ({_some(unexpected)})")
    if shapes:
        parts.append(f"{len(shapes)} of another shape ({'; '.join(shapes[:3])})")
    if parts:
        raise CheckpointError(
            f"`{path}` does not fit the model: {', '.join(parts)}; was it trained with other "
            "arguments or another class?"
        )
    module.load_state_dict(weights)


def check_finite(path: Path, weights: Mapping[str, Any]) -> None:
    """Raises CheckpointError naming the first tensor that holds NaN or infinity."""
    bad = [
        k
        for k, v in weights.items()
        if isinstance(v, Tensor) and v.is_floating_point() and not bool(torch.isfinite(v).all())
    ]
    if bad:
        count = int((~torch.isfinite(weights[bad[0]])).sum())
        raise CheckpointError(
            f"`{path}` holds NaN or infinity in {len(bad)} tensors, first `{bad[0]}` ({count} "
            "values); a model that diverged can't be tuned."
        )


def _some(names: list[Any]) -> str:
    return ", ".join(f"`{n}`" for n in names[:3]) + (", ..." if len(names) > 3 else "")
