"""Torch's operators, the one place that takes them untyped: torch makes them when they are read."""

from __future__ import annotations

from typing import Any

import torch

aten: Any = torch.ops.aten
# Of oneDNN, where torch was built with it.
mkldnn: Any = getattr(torch.ops, "mkldnn", None)
onednn: Any = getattr(torch.ops, "onednn", None)
