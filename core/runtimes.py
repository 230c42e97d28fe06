"""The runtimes that a user can ask for. backends/registry.py must offer the same (a test says so).

They stand here because flags, targets and `--help` must not wait for torch.
"""

from __future__ import annotations

from typing import Literal, get_args

Runtime = Literal["auto", "plain", "lowered", "openvino", "onnxruntime", "inductor"]
RUNTIMES: tuple[Runtime, ...] = get_args(Runtime)
DEFAULT_RUNTIME: Runtime = "auto"  # no compiler needed, whatever is fastest without one
