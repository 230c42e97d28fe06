"""Example values of a stored graph's nodes: a shape and a number format, without a captured graph's
symbols, whose library takes longer to import than a small network takes to load."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from typing_extensions import Self

Size = int | str  # a text where it differs from call to call: `s77`, `2*s77`


class Example(Tensor):
    """A value on the device `meta` whose `shape` names sizes that are known at the call only."""

    # Results are tensors like any.
    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]
    sizes: tuple[Size, ...]

    def __new__(cls, sizes: Sequence[Size], dtype: torch.dtype) -> Self:
        whole = [size if isinstance(size, int) else 1 for size in sizes]
        value = torch.empty(whole, dtype=dtype, device="meta").as_subclass(cls)
        value.sizes = tuple(sizes)
        return value

    @property
    def shape(self) -> Any:  # type: ignore[override]
        return self.sizes

    def __deepcopy__(self, memo: dict[int, object]) -> Self:
        return self


def example(sizes: Sequence[Size], dtype: torch.dtype) -> Tensor:
    if all(isinstance(size, int) for size in sizes):
        return torch.empty(list(sizes), dtype=dtype, device="meta")  # type: ignore[arg-type]
    return Example(sizes, dtype)
