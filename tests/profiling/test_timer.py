from __future__ import annotations

import gc
import random
from collections.abc import Callable
from itertools import pairwise

import pytest
import torch
from modelspeed.core.errors import MeasureError
from modelspeed.profiling import warm_up
from modelspeed.profiling.clocks import POOL, WallClock, clock_for, pools_mix
from modelspeed.profiling.notices import CODES, Load
from modelspeed.profiling.patience import Patience
from modelspeed.profiling.timer import measure, measure_interleaved


class FakeClock:
    """A call takes what it returns (ms); time passes by nothing else."""

    def __init__(self, loads: list[Load] | None = None) -> None:
        self.seconds = 0.0
        self.loads = loads or []
        self.pauses: list[float] = []

    def time(self, run: Callable[[], object]) -> float:
        ms = float(run())  # type: ignore[arg-type]
        self.seconds += ms / 1e3
        return ms

    def now(self) -> float:
        return self.seconds

    def load(self) -> Load | None:
        return self.loads.pop(0) if self.loads else None

    def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.seconds += seconds


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def codes(latency: object) -> set[str]:
    seen = {n.code for n in latency.notices}  # type: ignore[attr-defined]
    assert seen <= set(CODES)
    return seen


def test_a_steady_call_is_measured_exactly_and_briefly() -> None:
    clock = FakeClock()
    latency = measure(lambda: 5.0, clock=clock)
    assert (latency.value_ms, latency.low_ms, latency.high_ms) == (5.0, 5.0, 5.0)
    assert latency.notices == ()
    assert len(latency.samples_ms) >= 11
    assert clock.seconds < 1.0


def test_warm_up_is_not_counted() -> None:
    times = iter([900.0, 100.0, 80.0, 50.0, 30.0] + [10.0] * 10_000)
    assert max(measure(lambda: next(times), clock=FakeClock()).samples_ms) == 10.0


def test_a_model_that_never_stops_warming_up_is_called_cold() -> None:
    ms = 100.0

    def run() -> float:
        nonlocal ms
        ms = max(ms * 0.97, 1.0)
        return ms

    assert "cold" in codes(measure(run, clock=FakeClock(), max_seconds=10.0))


def test_noise_stops_at_the_time_bound_and_says_so() -> None:
    chance = random.Random(0)
    clock = FakeClock()
    latency = measure(lambda: chance.gauss(10.0, 0.6), clock=clock, max_seconds=2.0)
    assert {"noisy", "time_bound"} <= codes(latency)
    assert 2.0 <= clock.seconds < 3.0


def test_a_machine_that_cannot_give_one_percent_is_not_asked_to_the_bound() -> None:
    chance = random.Random(0)
    clock = FakeClock()
    latency = measure(lambda: chance.choice([10.0, 20.0]), clock=clock, max_seconds=8.0)
    assert "noisy" in codes(latency) and clock.seconds < 4.0


def test_moderate_noise_is_sampled_until_the_interval_is_within_one_percent() -> None:
    chance = random.Random(0)
    latency = measure(lambda: chance.gauss(10.0, 0.5), clock=FakeClock(), min_seconds=0.0)
    assert latency.high_ms - latency.low_ms <= 0.02 * latency.value_ms
    assert "noisy" not in codes(latency)
    assert len(latency.samples_ms) > 50


def test_a_change_in_mid_run_is_called_drift() -> None:
    clock = FakeClock()
    latency = measure(lambda: 10.0 if clock.seconds < 0.5 else 12.0, clock=clock, min_seconds=1.0)
    assert "drift" in codes(latency)


def test_interleaved_rows_are_equally_long_and_in_order() -> None:
    count = [0, 0]
    order: list[int] = []

    def run(index: int) -> float:
        order.append(index)
        count[index] += 1
        return 5.0 + index

    a, b = measure_interleaved([lambda: run(0), lambda: run(1)], clock=FakeClock())
    assert len(a.samples_ms) == len(b.samples_ms)
    assert (a.value_ms, b.value_ms) == (5.0, 6.0)
    switches = [i for i, j in pairwise(order) if i != j]
    assert len(switches) > 10, "the runs take turns"
    assert {tuple(order[i : i + 2]) for i in range(len(order))} >= {(0, 1), (1, 0)}


def test_drift_common_to_both_runs_leaves_their_ratio() -> None:
    clock = FakeClock()
    runs = [lambda: 4.0 * (1 + clock.seconds / 10), lambda: 2.0 * (1 + clock.seconds / 10)]
    a, b = measure_interleaved(runs, clock=clock, min_seconds=2.0)
    assert a.value_ms / b.value_ms == pytest.approx(2.0, rel=0.03)


def test_a_tail_percentile_gets_its_samples_beyond_the_time_bound() -> None:
    clock = FakeClock()
    latency = measure(lambda: 20.0, percentile=99.0, clock=clock, max_seconds=5.0)
    assert len(latency.samples_ms) >= 662


def test_a_percentile_out_of_reach_is_refused_before_sampling() -> None:
    clock = FakeClock()
    with pytest.raises(MeasureError, match="needs 662 samples"):
        measure(lambda: 500.0, percentile=99.0, clock=clock, max_seconds=2.0)
    assert clock.seconds < 5.0


def test_measuring_nothing_is_refused() -> None:
    with pytest.raises(MeasureError, match="empty"):
        measure_interleaved([], clock=FakeClock())


def test_garbage_collection_rests_while_sampling_and_returns() -> None:
    states: list[bool] = []

    def run() -> float:
        states.append(gc.isenabled())
        return 5.0

    measure(run, clock=FakeClock())
    assert states[-1] is False
    assert gc.isenabled()


def test_a_failing_call_leaves_garbage_collection_on() -> None:
    with pytest.raises(ValueError, match="inside"):
        measure(lambda: (_ for _ in ()).throw(ValueError("inside")), clock=FakeClock())
    assert gc.isenabled()


def test_other_work_on_the_machine_is_reported() -> None:
    idle = Load(0.0, 0.0, 0.0, 2)
    clock = FakeClock([idle, idle, idle, Load(10.0, 10.0, 19.5, 2)])
    assert "cpu_contention" in codes(measure(lambda: 5.0, clock=clock))


def test_the_wall_clock_measures_forward() -> None:
    clock = clock_for("cpu")
    assert isinstance(clock, WallClock)
    assert clock.time(lambda: None) >= 0.0
    assert clock.now() <= clock.now()


def crowded(seconds: float) -> Load:
    """Others take all that two cores have."""
    return Load(seconds, 0.0, 2.0 * seconds, 2)


class BusyClock(FakeClock):
    """Until `quiet_at` (s) others keep both cores busy, and a call takes 800 times as long."""

    def __init__(self, quiet_at: float) -> None:
        super().__init__()
        self.quiet_at = quiet_at

    def time(self, run: Callable[[], object]) -> float:
        ms = float(run()) * (800.0 if self.seconds < self.quiet_at else 1.0)  # type: ignore[arg-type]
        self.seconds += ms / 1e3
        return ms

    def load(self) -> Load:
        return crowded(min(self.seconds, self.quiet_at) + 1e-6 * self.seconds)


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> Patience:
    patience = Patience(30.0)
    monkeypatch.setattr(warm_up, "OF_THIS_PROCESS", patience)
    monkeypatch.setattr(warm_up, "by_whom", lambda: "`make` (process 7) takes 98 % of a core")
    return patience


def test_it_waits_for_a_busy_machine(patient: Patience) -> None:
    clock = BusyClock(quiet_at=50.0)
    latency = measure(lambda: 5.0, clock=clock)
    assert latency.value_ms == 5.0 and clock.pauses == [0.5, 1.0, 2.0, 4.0, 8.0]


def test_a_machine_that_stays_too_busy_is_refused_by_name(patient: Patience) -> None:
    clock = BusyClock(quiet_at=1e9)
    with pytest.raises(MeasureError, match=r"too busy: `make` \(process 7\)") as found:
        measure(lambda: 5.0, clock=clock)
    assert sum(clock.pauses) <= 30.0 and "--batch" not in str(found.value)
    assert "--threads" not in str(found.value), "there is one already"


def test_the_budget_of_a_process_is_spent_once(patient: Patience) -> None:
    for _ in range(2):
        clock = BusyClock(quiet_at=1e9)
        with pytest.raises(MeasureError, match="too busy"):
            measure(lambda: 5.0, clock=clock)
    assert sum(clock.pauses) < 4.0


def test_calls_that_are_slow_but_countable_are_measured_on_a_busy_machine(
    patient: Patience,
) -> None:
    """835 ms a call at batch 1, as two spinning threads had beside two busy processes."""
    clock = BusyClock(quiet_at=1e9)
    latency = measure(lambda: 835.0 / 800, clock=clock, max_seconds=2.0)
    assert latency.value_ms == pytest.approx(835.0) and clock.pauses == []
    assert "cpu_contention" in codes(latency)


@pytest.mark.parametrize(
    ("p", "batch", "advice"),
    [
        (50.0, 1, "allowed."),
        (50.0, 8, "allowed. Use a smaller `--batch`."),
        (99.0, 1, "allowed. Use `--percentile 50`."),
        (99.0, 8, "allowed. Use a smaller `--batch` or `--percentile 50`."),
    ],
)
def test_advice_is_only_what_can_help(p: float, batch: int, advice: str) -> None:
    with pytest.raises(MeasureError) as found:
        measure(lambda: 20_000.0, percentile=p, clock=FakeClock(), batch=batch)
    assert str(found.value).endswith(advice)


class Spinning:
    """Two runs, of which the other's threads wait actively for 7 ms and take cores meanwhile."""

    def __init__(self, clock: FakeClock) -> None:
        self.clock, self.last = clock, {"": -1.0, "other": -1.0}

    def run(self, pool: str, ms: float) -> Callable[[], float]:
        def call() -> float:
            now = self.clock.seconds
            rest = max(at for name, at in self.last.items() if name != pool)
            took = ms * (3.0 if now - rest < 7e-3 else 1.0)
            self.last[pool] = now + took / 1e3
            return took

        setattr(call, POOL, pool)
        return call


@pytest.mark.parametrize("ms", [0.05, 0.2, 5.0])
def test_threads_of_another_pool_sleep_before_a_call_counts(ms: float) -> None:
    torch.set_num_threads(2)
    clock = FakeClock()
    spinning = Spinning(clock)
    runs = [spinning.run("", 4.0), spinning.run("other", ms)]
    rows = measure_interleaved(runs, clock=clock, max_seconds=2.0)
    assert [row.value_ms for row in rows] == [4.0, ms]
    assert all(max(row.samples_ms) == row.value_ms for row in rows)
    assert clock.seconds < 5.0


def test_with_one_thread_or_one_pool_nobody_waits() -> None:
    clock = FakeClock()
    spinning = Spinning(clock)
    runs = [spinning.run("", 4.0), spinning.run("other", 0.2)]
    assert not pools_mix(runs)
    torch.set_num_threads(2)
    assert pools_mix(runs) and not pools_mix(runs[:1] * 2)
