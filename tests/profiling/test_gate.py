"""Processes that compute stand still while one measures; a killed one leaves nobody standing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pico
import pytest
import torch
from modelspeed.core.errors import MeasureError
from modelspeed.core.model_io import Inputs
from modelspeed.graph.capture import capture
from modelspeed.profiling.gate import VARIABLE, Enrolment, alone, usual_folder, working
from modelspeed.profiling.layers import profile_layers
from modelspeed.profiling.peak import measure_peak
from modelspeed.profiling.timer import measure
from modelspeed.search.latency_tables import LatencyTables, Store, shapes_of

SPIN = "import time\nwhile True: time.sleep(0.001)"
# Says `in` when it has the device, keeps it until a line comes (or for good), says `out`.
MEASURE = """
import sys
from modelspeed.profiling.gate import alone
with alone():
    with alone():
        print("in", flush=True)
        sys.stdin.readline()
print("out", flush=True)
sys.stdin.readline()
"""


@pytest.fixture
def gate(tmp_path, monkeypatch):
    monkeypatch.setenv(VARIABLE, str(tmp_path / "gate"))
    return tmp_path / "gate"


@pytest.fixture
def start(gate):
    """Start a program as a group of its own, enrolled; all are ended afterwards."""
    started = []

    def begin(code):
        child = subprocess.Popen(
            [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            start_new_session=True,
        )  # fmt: skip
        started.append((child, Enrolment(gate, child.pid)))
        return started[-1]

    yield begin
    for child, enrolled in started:
        child.kill()
        child.communicate()
        enrolled.close()
    assert not [p for p in gate.iterdir() if p.name.isdigit()]


def state(child):
    """`T` where stopped, looked at until it is what was wanted or 5 s are over."""
    return Path(f"/proc/{child.pid}/stat").read_text().rpartition(")")[2].split()[0]


def becomes(child, wanted):
    end = time.monotonic() + 5
    while time.monotonic() < end:
        if (state(child) == "T") == (wanted == "T"):
            return True
        time.sleep(0.005)
    return False


def test_without_the_variable_nothing_is_locked(tmp_path, monkeypatch):
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.chdir(tmp_path)
    with alone():
        assert not list(tmp_path.iterdir())


def test_computing_stands_still_while_one_measures_and_goes_on_afterwards(start):
    computing, _ = start(SPIN)
    measuring, _ = start(MEASURE)
    assert measuring.stdout.readline() == "in\n"
    assert becomes(computing, "T") and state(measuring) != "T"
    measuring.stdin.write("\n")
    measuring.stdin.flush()
    assert measuring.stdout.readline() == "out\n" and becomes(computing, "running")


class Watching:
    """A clock that looks, at each call that it times, whether the other process stands still."""

    def __init__(self, other):
        self.other, self.seconds, self.alone = other, 0.0, []

    def time(self, run):
        run()
        self.alone.append(becomes(self.other, "T"))
        self.seconds += 0.05
        return 1.0

    def now(self):
        return self.seconds

    def sleep(self, seconds):
        self.seconds += seconds

    def load(self):
        return None


def test_every_timing_is_taken_alone(start, tmp_path):
    computing, _ = start(SPIN)
    graph, x = capture(pico.net([]), Inputs((pico.images(1),))), Inputs((pico.images(1),))
    shape = next(iter(shapes_of(graph, x).values()))
    tables = LatencyTables("plain", "cpu", Store(tmp_path / "costs.json"), None)
    takes = (
        lambda clock: measure(lambda: None, clock=clock),
        lambda clock: measure_peak("cpu", torch.float32, clock, 0.2, 8),
        lambda clock: profile_layers(graph, x, clock=clock, repeats=1, peak=1.0),
        lambda clock: setattr(tables, "clock", clock) or tables.measure([(shape, [(1, 8)])], str),
    )
    for take in takes:
        clock = Watching(computing)
        take(clock)
        assert clock.alone and all(clock.alone)
        assert becomes(computing, "running")


def test_two_measure_one_after_the_other(start):
    first, _ = start(MEASURE)
    assert first.stdout.readline() == "in\n"
    second, enrolled = start(MEASURE)  # begun while the first measures: it stands still at once
    assert becomes(second, "T")
    first.stdin.write("\n")
    first.stdin.flush()
    assert first.stdout.readline() == "out\n"
    enrolled.relieve()
    assert second.stdout.readline() == "in\n" and becomes(first, "T")


def test_a_killed_measurer_frees_the_device_and_relieve_continues_who_stood_still(start, gate):
    computing, enrolled = start(SPIN)
    measuring, _ = start(MEASURE)
    assert measuring.stdout.readline() == "in\n" and becomes(computing, "T")
    enrolled.relieve()
    assert state(computing) == "T"  # not while someone measures
    os.killpg(measuring.pid, signal.SIGKILL)
    measuring.wait()
    enrolled.relieve()
    assert becomes(computing, "running")
    with alone():
        assert becomes(computing, "T")


def test_standing_still_counts_as_no_work_but_measuring_does(start):
    begun, wall = working(), time.monotonic()
    with alone():
        time.sleep(0.05)
    assert working() - begun == pytest.approx(time.monotonic() - wall, abs=0.02)
    measuring, _ = start(MEASURE)
    assert measuring.stdout.readline() == "in\n"
    time.sleep(0.2)
    measuring.stdin.write("\n")
    measuring.stdin.flush()
    assert measuring.stdout.readline() == "out\n"
    assert (time.monotonic() - wall) - (working() - begun) >= 0.15


def test_an_enrolment_whose_starter_is_gone_is_never_signalled(gate):
    foreign = subprocess.Popen([sys.executable, "-c", SPIN], start_new_session=True)
    try:
        gate.mkdir()
        stale = gate / str(foreign.pid)  # the number may belong to any process by now
        stale.touch()
        with alone():
            assert state(foreign) != "T" and not stale.exists()
    finally:
        foreign.kill()
        foreign.wait()


def test_a_gate_of_another_user_is_refused(gate, monkeypatch):
    gate.mkdir()
    uid = os.getuid()
    monkeypatch.setattr(os, "getuid", lambda: uid + 1)
    with pytest.raises(MeasureError, match="another user"):
        Enrolment(gate, 1)


def test_the_usual_folder_is_one_a_user():
    assert usual_folder() == usual_folder() and str(os.getuid()) in usual_folder().name
