"""The processes that train together: this one alone, or a group that `torchrun` started."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import torch.distributed as dist

T = TypeVar("T")


@dataclass(frozen=True)
class Group:
    rank: int = 0
    size: int = 1

    def agree(self, value: T) -> T:
        """What the first process found: clocks and rounding differ between them."""
        if self.size == 1:
            return value
        held = [value]
        dist.broadcast_object_list(held, src=0)
        return held[0]
