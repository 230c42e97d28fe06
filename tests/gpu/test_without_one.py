"""What was tuned on a GPU, on a machine that has none."""

from __future__ import annotations

from dataclasses import replace

import modelspeed
import pico
import pytest
import torch
from modelspeed.backends.cuda_graph import LOWERINGS
from modelspeed.checkpoints.staging import save
from modelspeed.core.errors import MachineWarning, UsageError
from modelspeed.core.model_io import Inputs
from modelspeed.core.records import Latency, Record, Target
from modelspeed.graph.capture import export_program
from modelspeed.profiling.machine import fingerprint
from modelspeed.runtime.loaded import running

ONE = Inputs.of((pico.images(1),))


@pytest.fixture
def no_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)


@pytest.mark.parametrize("runtime", [*LOWERINGS, "inductor"])
def test_an_artifact_of_a_gpu_runs_on_the_cpu_and_says_so(tmp_path, no_gpu, runtime, monkeypatch):
    monkeypatch.setattr("modelspeed.backends.inductor.lacks_compiler", lambda _: "needs a compiler")
    there = replace(fingerprint(), device="cuda (NVIDIA H200)", threads=torch.get_num_threads())
    record = Record(
        "tune", "now", "0", "m.pt", "0" * 64, there, Target(device="cuda"), "none", "",
        Latency(50, 1, 1, 1),
    )  # fmt: skip
    net = pico.net(["residual"])
    folder = save(
        tmp_path / "fast", program=export_program(net, ONE), edits=[], record=record,
        recipe_yaml="version: 1\n", inputs=ONE, runtime=runtime, reports={}, force=False,
    )  # fmt: skip
    with pytest.warns(MachineWarning) as seen:
        module = modelspeed.load(folder)
    said = [str(row.message) for row in seen]
    assert "H200" in said[0] and "Run `modelspeed tune` here" in said[0]
    assert [("needs a compiler" in text) for text in said[1:]] == [True] * (runtime == "inductor")
    assert all(p.device.type == "cpu" for p in running(module).parameters())
    with torch.inference_mode():
        for rows in (1, 3):
            torch.testing.assert_close(module(pico.images(rows)), net(pico.images(rows)))
    with pytest.raises(UsageError, match="torch sees 0 CUDA devices"):
        modelspeed.load(folder, device="cuda:1")
