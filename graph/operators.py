"""Torch's operators, the one place that takes them untyped: torch makes them when they are read."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import torch
from torch.fx.node import Argument

Operator: TypeAlias = Callable[..., object]
Arguments: TypeAlias = tuple[Argument, ...]

aten: Any = torch.ops.aten
# Of oneDNN, where torch was built with it.
mkldnn: Any = getattr(torch.ops, "mkldnn", None)
onednn: Any = getattr(torch.ops, "onednn", None)
