from __future__ import annotations

import pico
import pytest
import torch
from modelspeed.core.model_io import Inputs
from modelspeed.core.progress import Silent
from modelspeed.core.records import Target
from modelspeed.profiling.notices import CODES, Load
from modelspeed.profiling.patience import Patience
from modelspeed.tuning import spinning

INPUTS = Inputs.of((pico.images(),))


class BusyClock:
    """Until `quiet_at` (s) others take both cores: a call of two threads takes 835 ms, not 5."""

    def __init__(self, quiet_at, alone_ms=8.0):
        self.seconds, self.others, self.quiet_at, self.alone_ms = 0.0, 0.0, quiet_at, alone_ms
        self.pauses = []

    def time(self, run):
        run()
        busy = self.seconds < self.quiet_at
        many = torch.get_num_threads() > 1
        ms = (835.0 if many else 2 * self.alone_ms) if busy else (5.0 if many else self.alone_ms)
        self._pass(ms / 1e3)
        return ms

    def _pass(self, seconds):
        self.others += max(0.0, min(seconds, self.quiet_at - self.seconds))
        self.seconds += seconds

    def now(self):
        return self.seconds

    def sleep(self, seconds):
        self.pauses.append(seconds)
        self._pass(seconds)

    def load(self):
        return Load(self.seconds, 0.0, 2.0 * self.others, 2)


@pytest.fixture(autouse=True)
def two_threads(monkeypatch):
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    monkeypatch.setattr(spinning, "OF_THIS_PROCESS", Patience(30.0))
    monkeypatch.setattr(spinning, "by_whom", lambda: "`make` (process 7) takes 98% of a core")
    yield
    torch.set_num_threads(before)


def found(target, clock):
    return spinning.without_spinning(target, torch.nn.Identity(), INPUTS, Silent(), clock)


def test_a_quiet_machine_keeps_its_threads():
    assert found(Target(), BusyClock(0.0)) == (Target(), ()) and torch.get_num_threads() == 2


def test_it_waits_until_the_others_end():
    clock = BusyClock(quiet_at=12.0)
    assert found(Target(), clock) == (Target(), ()) and torch.get_num_threads() == 2
    assert clock.pauses and sum(clock.pauses) < 12.0


def test_a_machine_that_stays_busy_gets_one_thread_for_all_sides_and_says_so():
    clock = BusyClock(quiet_at=1e9)
    target, notices = found(Target(), clock)
    assert target.threads == 1 == torch.get_num_threads() and sum(clock.pauses) <= 30.0
    assert [n.code for n in notices] == ["fewer_threads"] and "fewer_threads" in CODES
    assert "With 2 threads a call took 835 ms, with 1 16 ms" in notices[0].seen
    assert "`make`" in notices[0].cause and "`--threads 2`" in notices[0].remedy


def test_a_machine_that_is_busy_but_does_not_spin_keeps_its_threads():
    clock = BusyClock(quiet_at=1e9, alone_ms=400.0)
    assert found(Target(), clock) == (Target(), ()) and clock.pauses == []


@pytest.mark.parametrize("target", [Target(threads=2), Target(device="cuda")])
def test_what_the_user_named_stays(target):
    assert found(target, BusyClock(1e9)) == (target, ()) and torch.get_num_threads() == 2
