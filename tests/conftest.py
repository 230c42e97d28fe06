"""Whole runs are without other runtimes than torch's, as of a user without extras, unless marked.

With them every candidate of every run would be converted once more: minutes of `make test`.
"""

from __future__ import annotations

import pytest
from modelspeed.backends.onnxruntime import OnnxRuntime
from modelspeed.backends.openvino import OpenVino

RUNS = {"batch", "cli", "examples", "reporting", "search", "training", "tuning"}


@pytest.fixture(autouse=True)
def without_extras(request, monkeypatch):
    rooms = {part.name for part in request.path.parents}
    if rooms & RUNS and request.node.get_closest_marker("extras") is None:
        for kind in (OpenVino, OnnxRuntime):
            monkeypatch.setattr(kind, "lacks", lambda self, device: f"needs `{self.name}`")
