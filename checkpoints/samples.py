"""Example inputs drawn from a seed: the same numbers on every machine."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from ..core.errors import UsageError


def draw_inputs(specs: Iterable[Mapping[str, Any]], seed: int) -> tuple[Tensor, ...]:
    """One tensor per {shape, dtype}: normal floats, integers 0 or 1. On the CPU."""
    generator = torch.Generator().manual_seed(seed)
    drawn = []
    for spec in specs:
        shape = [int(n) for n in spec["shape"]]
        dtype = getattr(torch, str(spec["dtype"]), None)
        if not isinstance(dtype, torch.dtype):
            raise UsageError(f"`{spec['dtype']}` is no dtype of torch.")
        if dtype.is_floating_point:
            drawn.append(torch.randn(shape, generator=generator).to(dtype))
        else:
            drawn.append(torch.randint(0, 2, shape, generator=generator).to(dtype))
    return tuple(drawn)
