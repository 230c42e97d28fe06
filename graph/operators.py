"""ATen's operators, the one place that takes them untyped: torch makes them when they are read."""

from __future__ import annotations

from typing import Any

import torch

aten: Any = torch.ops.aten
