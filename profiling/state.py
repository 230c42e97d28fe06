"""State that a model keeps from call to call, put back after it was called for measuring.

A streaming convolution's cache or a call counter is part of the checkpoint: the thousands of calls
that measuring takes must not be found in what is saved, and each evaluation starts from the same.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

PACKED = "_packed_"  # weights in a kernel's own layout, which no forward writes


@contextmanager
def kept_state(module: Any) -> Iterator[None]:
    """Put buffers and tensors in attributes of `module` back to what they were, in place.

    Tensors that a forward put in place of others go again. An object that is not a module has none.
    """
    before = list(_kept_tensors(module)) if isinstance(module, nn.Module) else []
    values = [(owner, name, tensor, tensor.detach().clone()) for owner, name, tensor in before]
    try:
        yield
    finally:
        for owner, name, tensor, value in values:
            if name not in owner or owner[name] is not tensor:
                owner[name] = tensor
            if not _equal(tensor, value):
                with torch.inference_mode():  # the one mode that may write tensors made under it
                    tensor.copy_(value)


def _kept_tensors(module: nn.Module) -> Iterator[tuple[dict[str, Any], str, Tensor]]:
    seen: set[int] = set()
    for owner in module.modules():
        attributes: tuple[dict[str, Any], ...] = (owner._buffers, vars(owner))
        for table in attributes:
            for name, tensor in table.items():
                if isinstance(tensor, Tensor) and not name.startswith(PACKED) and _dense(tensor):
                    if id(tensor) not in seen:
                        seen.add(id(tensor))
                        yield table, name, tensor


def _dense(tensor: Tensor) -> bool:
    return tensor.layout is torch.strided and not tensor.is_meta and not tensor.is_mkldnn


def _equal(tensor: Tensor, value: Tensor) -> bool:
    """Bit for bit as far as numbers go: NaN equals NaN."""
    if tensor.shape != value.shape:
        return False
    return bool(((tensor == value) | ((tensor != tensor) & (value != value))).all())
