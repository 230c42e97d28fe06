"""Error rates of measurements that stop early, on a machine that is not quiet."""

from __future__ import annotations

import pytest
import torch
from modelspeed.core.records import Target
from modelspeed.profiling import timer
from modelspeed.profiling.questions import LOOKS, Clear, Order
from modelspeed.profiling.timer import measure_interleaved
from noisy_machine import KINDS, NoisyClock

RUNS = 500


@pytest.fixture(autouse=True)
def no_real_time(monkeypatch):
    torch.set_num_threads(1)
    monkeypatch.setattr(timer.gc, "collect", lambda: 0)  # a twentieth of a second each


def ask(kind: str, seed: int, *ms: float, seconds: float = 2.0) -> tuple[Order, float]:
    clock, order = NoisyClock(kind, seed), Order(50.0)
    measure_interleaved(
        [lambda value=value: value for value in ms],
        clock=clock, max_seconds=seconds, min_seconds=0.0, seed=seed, question=order,
    )  # fmt: skip
    return order, clock.seconds


@pytest.mark.parametrize("kind", KINDS)
def test_a_model_against_itself_shows_no_change_in_99_percent(kind):
    found = [ask(kind, seed, 8.0, 8.0)[0].comparison().finding for seed in range(RUNS)]
    assert found.count("no significant change") >= 0.99 * RUNS


@pytest.mark.parametrize("kind", KINDS)
def test_a_tenth_faster_is_found_and_never_taken_for_slower(kind):
    found = [ask(kind, seed, 8.8, 8.0)[0].comparison().finding for seed in range(RUNS // 2)]
    assert "slower" not in found
    assert found.count("faster") >= 0.95 * len(found)


def test_a_clear_answer_is_found_in_a_fraction_of_the_time():
    spent = [ask("quiet", seed, 16.0, 8.0)[1] for seed in range(20)]
    assert max(spent) < 0.35 * 2 * 2.0


def test_the_interval_holds_the_ratio():
    missed = 0
    for seed in range(RUNS):
        comparison = ask("phases", seed, 8.4, 8.0)[0].comparison()
        missed += not comparison.low <= 1.05 <= comparison.high
    assert missed <= 0.02 * RUNS


def test_the_fastest_of_several_is_known_when_it_stops():
    orders = [ask("phases", seed, 9.0, 8.0, 12.0)[0] for seed in range(30)]
    assert [o.comparison(0, 1).finding for o in orders].count("faster") >= 27
    assert {o.comparison(1, 2).finding for o in orders} == {"slower"}


def test_it_looks_a_fixed_number_of_times():
    order = Order(50.0)
    rows = [[1.0 + 0.1 * (i % 7) for i in range(40)], [1.0 + 0.1 * (i % 5) for i in range(40)]]
    for step in range(1, 1001):
        order.answered(rows, 1, step / 1000)
    assert order._looked == LOOKS


def test_a_tail_without_enough_rounds_is_compared_as_before():
    order = Order(99.0)
    order.answered([[2.0] * 700, [1.0] * 700], 20, 1.0)
    assert order.comparison().finding == "faster"


class Restless(NoisyClock):
    """Each call at another speed: the median settles slowly."""

    def _factor(self) -> float:
        return self.chance.uniform(1.0, 2.0)


def seconds_for(ms: float, seed: int) -> float:
    clock = Restless("quiet", seed)
    measure_interleaved(
        [lambda: 8.0, lambda: ms],
        clock=clock, max_seconds=5.0, seed=seed, question=Clear(Target(ms=6.0), 8.0),
    )  # fmt: skip
    return clock.seconds


def test_a_clear_verdict_does_not_run_to_the_bound_on_a_machine_that_cannot_give_one_percent():
    assert max(seconds_for(3.0, seed) for seed in range(5)) < 8.0
    assert min(seconds_for(6.0, seed) for seed in range(5)) > 10.0
