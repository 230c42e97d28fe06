"""Whole runs are without OpenVINO, as of a user who has not installed it unless marked.

With it every candidate of every run would be converted once more: minutes of `make test`.
"""

from __future__ import annotations

import pytest
from modelspeed.backends.openvino import OpenVino

RUNS = {"batch", "cli", "examples", "reporting", "search", "training", "tuning"}


@pytest.fixture(autouse=True)
def without_openvino(request, monkeypatch):
    rooms = {part.name for part in request.path.parents}
    if rooms & RUNS and request.node.get_closest_marker("openvino") is None:
        monkeypatch.setattr(OpenVino, "lacks", lambda self, device: "needs the package `openvino`")
