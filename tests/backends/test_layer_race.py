from __future__ import annotations

import pytest
import torch
from modelspeed.backends import layer_race
from modelspeed.backends.layer_race import worth_packing


class Clock:
    """Each call takes what `times` says, with a slow phase in the middle."""

    def __init__(self, times):
        self.times, self.calls, self.passed = times, 0, 0.0

    def time(self, run):
        self.calls += 1
        ms = self.times[run()] * (3.0 if 4 <= self.calls < 8 else 1.0)
        self.passed += ms / 1e3
        return ms

    def now(self):
        return self.passed


@pytest.fixture
def race(monkeypatch):
    monkeypatch.setattr(layer_race, "_answers", {})

    def run(packed, plain, layer="layer"):
        clock = Clock({"packed": packed, "plain": plain})
        monkeypatch.setattr(layer_race, "WallClock", lambda: clock)
        return worth_packing(layer, lambda: "packed", lambda: "plain"), clock.calls

    return run


@pytest.mark.parametrize(
    ("packed", "plain", "worth"),
    [(0.01, 0.03, True), (0.03, 0.01, False), (1.0, 0.99, True), (1.0, 0.9, False), (5, 7, True)],
)
def test_the_faster_kernel_wins_and_a_tie_is_packed(race, packed, plain, worth):
    assert race(packed, plain)[0] is worth


def test_small_layers_are_called_often_and_large_ones_a_few_times(race):
    assert race(0.01, 0.01)[1] == 2 * layer_race.MOST
    assert race(5.0, 6.0, "large")[1] == 2 * 2
    assert race(50.0, 60.0, "huge")[1] == 2


def test_a_layer_is_asked_once_for_each_thread_count(race):
    assert race(0.03, 0.01) == (False, 2 * layer_race.MOST)
    assert race(0.01, 0.03) == (False, 0)  # the answer of before
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(threads + 1)
        assert race(0.01, 0.03)[0] is True
    finally:
        torch.set_num_threads(threads)
