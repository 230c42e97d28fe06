"""The driver's words about a GPU; what CUDA itself does is replaced, but for the last tests."""

from __future__ import annotations

from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import torch
from modelspeed.profiling import clocks, gpu_state
from modelspeed.profiling.clocks import CudaClock, QueuedCudaClock, clock_for, wake
from modelspeed.profiling.gpu_state import GpuState, gpu_finding, gpu_slowed, parsed, read_gpu
from modelspeed.profiling.notices import CODES

gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
COOL = GpuState(1980.0, 1980.0, 34.0, 120.0, 0)


class Event:
    """CUDA's event: the device's time, which passes by `_sleep` and by what `run` says."""

    def __init__(self, machine):
        self.machine, self.at = machine, 0.0

    def record(self):
        self.at = self.machine.ms

    def synchronize(self):
        pass

    def elapsed_time(self, other):
        return other.at - self.at


class Machine:
    """A GPU with a clock in MHz that rises while it works."""

    def __init__(self, monkeypatch):
        self.ms, self.mhz, self.leads, self.seconds = 0.0, 345.0, [], 0.0
        host = SimpleNamespace(perf_counter=lambda: self.seconds, sleep=None)
        monkeypatch.setattr(clocks, "time", host)
        monkeypatch.setattr(torch.cuda, "device", lambda _: nullcontext())
        monkeypatch.setattr(torch.cuda, "synchronize", lambda *_: None)
        monkeypatch.setattr(torch.cuda, "_sleep", self.leads.append)
        monkeypatch.setattr(clocks, "_event", lambda: Event(self))

    def works(self, ms):
        self.ms += ms


def test_the_answer_of_nvidia_smi_is_read_and_what_it_does_not_tell_is_nothing():
    assert parsed("1980, 1980, 34, 120.00, 0x0000000000000000\n") == COOL
    told = parsed("1200, 1980, 88, [N/A], 0x0000000000000024")
    assert told.watts == 0.0 and told.slowed_by == ("its power limit", "temperature")
    assert parsed("345, 1980, 30, 70, 0x1").slowed_by == ()  # idle
    for other in ("No devices were found", "1, 2"):
        with pytest.raises(ValueError, match="nvidia-smi"):
            parsed(other)


def test_a_clock_that_is_held_down_is_a_notice_with_the_cause():
    assert gpu_slowed(None) is gpu_slowed(COOL) is None
    notice = gpu_slowed(GpuState(1200.0, 1980.0, 88.0, 700.0, 0x4 | 0x1))
    assert notice.code in CODES and "1200 of 1980 MHz" in notice.seen
    assert "its power limit" in notice.seen
    rows = [gpu_finding("cuda", lambda _, s=s: s) for s in (None, COOL, GpuState(1, 2, 3, 4, 0x40))]
    assert [row.state for row in rows] == ["watch", "good", "bad"]


def test_where_there_is_no_gpu_nobody_is_asked(monkeypatch):
    monkeypatch.setattr(gpu_state, "_smi", lambda _: pytest.fail("nvidia-smi was called"))
    assert read_gpu("cpu") is None
    wake(lambda: pytest.fail("called"), clock_for("cpu"))


def test_nvidia_smi_is_not_asked_for_every_measurement(monkeypatch):
    asked = []
    monkeypatch.setattr(gpu_state, "_uuid", lambda _: "GPU-1")
    monkeypatch.setattr(gpu_state, "_by_nvml", lambda _: 1 / 0)
    monkeypatch.setattr(gpu_state, "_last", {})
    monkeypatch.setattr(
        gpu_state, "_smi", lambda name: asked.append(name) or "1980, 1980, 34, 120, 0x0"
    )
    assert [read_gpu("cuda"), read_gpu("cuda")] == [COOL, COOL] and asked == ["GPU-1"]
    assert read_gpu("cuda", quick=True) is None


def test_a_gpu_is_called_until_its_clock_has_risen(monkeypatch):
    machine, calls = Machine(monkeypatch), []

    def run():
        calls.append(machine.mhz)
        machine.mhz = min(1980.0, machine.mhz + 50.0)
        machine.seconds += 0.01

    monkeypatch.setattr(
        clocks, "read_gpu", lambda device, quick: GpuState(machine.mhz, 1980.0, 30.0, 100.0, 0)
    )
    wake(run, CudaClock())
    assert calls[0] == 345.0 and machine.mhz == 1980.0


def test_a_call_is_queued_behind_a_spin_that_outlasts_the_queueing(monkeypatch):
    machine = Machine(monkeypatch)
    monkeypatch.setattr(clocks, "LEAD_MS", 0.5)
    clock = QueuedCudaClock()

    def run():
        machine.seconds += 0.002  # launches
        machine.works(0.25)

    assert clock.time(run) == pytest.approx(0.25)
    assert machine.leads == [1e6, 8e6], "0.5 ms were too few for 2 ms of launches"
    assert CudaClock().time(run) == pytest.approx(0.25) and len(machine.leads) == 2


@gpu
@pytest.mark.gpu
def test_on_a_gpu_the_driver_tells_a_clock():
    state = read_gpu("cuda")
    assert state is not None and 0 < state.sm_mhz <= 1.05 * state.most_mhz and state.celsius > 0
