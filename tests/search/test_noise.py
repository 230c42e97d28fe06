"""Whole runs on a disturbed machine, by the thousand: what ships, and is the verdict true?

`tests/support/noisy_lab.py` and `weather.py` say what is simulated.
"""

from __future__ import annotations

import random
from collections import Counter
from functools import cache

import pytest
from modelspeed.configs.load import parse_recipe
from modelspeed.search.decision import Decision, StepDecision
from noisy_lab import INT8, JOBS, UNLIKE, Shipped, lab_of, run
from weather import KINDS, Weather, slow_phases

RUNS = 1000
RECIPE = """
version: 1
limits: {max_drop: 0.02}
adjust:
  - prune
  - quantize: {scheme: int8_weight}
  - quantize
"""
NEAR = 0.005  # of the metric
LOSSLESS_IS_ENOUGH = 2 / 10  # of the targets
# A machine that stays slower than it was, or is quiet for seconds only, can't show more.
INCONCLUSIVE = {"drift": 0.5, "mostly_slow": 0.85}
UNKNOWABLE = {"mostly_slow": 0.05}


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    return parse_recipe(RECIPE, "recipe", tmp_path_factory.mktemp("noise"))


@pytest.fixture(scope="module")
def quiet_drop(recipe):
    """What is lost on a machine that nothing disturbs, always `factor` as slow: two such runs
    differ by the noise of medians alone, so the largest one of five."""

    @cache
    def drop(job: int, factor: float) -> float:
        weather = Weather((0.0,), (factor,))
        return max(run(lab_of(recipe, job, weather, seed)).drop for seed in range(5))

    return drop


def wrongs(shipped: Shipped) -> list[str]:
    """What no run may do."""
    met = shipped.share <= 1.0
    false = {"met": not met, "missed": met}.get(shipped.verdict, False)
    rows = ["verdict"] if false else []
    if shipped.lossless_share <= 0.95 and shipped.drop > 0.0005:
        rows.append("worse than lossless")
    return rows


@pytest.mark.parametrize("kind", KINDS)
def test_a_disturbed_run_ships_what_a_quiet_one_does(recipe, quiet_drop, kind):
    """Beside the quiet machine that the run has seen: what it never measured it can't know."""
    count = Counter()
    for seed in range(RUNS):
        weather = KINDS[kind](random.Random(seed))
        shipped = run(lab_of(recipe, seed % JOBS, weather, seed))
        quiet = quiet_drop(seed % JOBS, round(shipped.quiet, 2))
        count.update(wrongs(shipped))
        count["less accurate"] += shipped.drop > quiet + NEAR
        count[shipped.verdict] += 1
    assert count["worse than lossless"] == 0 and count["verdict"] <= 0.01 * RUNS, count
    assert count["less accurate"] <= UNKNOWABLE.get(kind, 0.01) * RUNS, count
    assert count["inconclusive"] <= INCONCLUSIVE.get(kind, 0.05) * RUNS


@pytest.mark.long
@pytest.mark.parametrize("kind", ["slow_phases", "spikes", "drift", "becomes_faster"])
def test_where_slow_phases_hit_the_original_harder_next_to_no_verdict_is_false(recipe, kind):
    """Then a ratio overstates the gain; what is measured while it is quiet sets it right."""
    count = Counter()
    for seed in range(RUNS):
        lab = lab_of(recipe, seed % JOBS, KINDS[kind](random.Random(seed)), seed)
        lab.sensitivities = UNLIKE
        count.update(wrongs(run(lab)))
    assert count["verdict"] <= 0.02 * RUNS and count["worse than lossless"] <= 0.005 * RUNS, count


@pytest.mark.parametrize("failures", [0.05, 0.3])
def test_what_fails_to_build_or_to_verify_makes_nothing_worse_than_lossless(recipe, failures):
    count = Counter()
    for seed in range(RUNS):
        weather = slow_phases(random.Random(seed))
        try:
            shipped = run(lab_of(recipe, seed % JOBS, weather, seed, failures=failures))
        except RuntimeError as error:  # everything failed, lossless work included
            assert str(error) == "it fails"
            count["nothing"] += 1
            continue
        count.update(wrongs(shipped))
    assert count["verdict"] <= 0.01 * RUNS, count
    # Where lossless work itself failed, something else has to do.
    assert count["worse than lossless"] <= 1.2 * failures * RUNS * LOSSLESS_IS_ENOUGH, count
    assert count["nothing"] <= failures**2 * RUNS, count


@pytest.mark.parametrize("seconds", [20.0, 120.0])
def test_whenever_the_time_is_up_the_best_that_is_known_ships(recipe, seconds):
    """It ends soon after: one training, one verification with its patience, what was begun."""
    count = Counter()
    for seed in range(RUNS):
        weather = slow_phases(random.Random(seed))
        shipped = run(lab_of(recipe, seed % JOBS, weather, seed, seconds_allowed=seconds))
        count.update(wrongs(shipped))
        count["late"] += shipped.seconds > seconds + 300.0
    assert count["worse than lossless"] == 0 and count["verdict"] <= 0.01 * RUNS, count
    assert count["late"] == 0, count


def test_where_accuracy_is_preferred_the_limit_is_kept(recipe):
    for seed in range(RUNS):
        shipped = run(
            lab_of(recipe, seed % JOBS, slow_phases(random.Random(seed)), seed), "accuracy"
        )
        assert shipped.drop <= 0.02 + 0.002 and not wrongs(shipped), seed


def test_one_slow_fresh_process_and_no_time_left_still_ship_what_is_lossless_or_int8(recipe):
    """The run that gave this issue its name: the fastest candidate, which nobody had judged,
    shipped at 12 points less, since a fresh process fell into a slow phase as the time was up."""
    nodes = frozenset({"conv", "mix"})
    int8 = Decision({}, taken=(StepDecision(recipe.adjust[INT8], nodes),))
    count = 0
    for job in range(JOBS):
        lab = lab_of(recipe, job, Weather((0.0, 60.0), (1.0, 1.7)), job, seconds_allowed=120.0)
        if lab.true_ms(int8) <= 0.9 * lab.target.ms:
            count += 1
            assert run(lab).drop <= 0.005 + 1e-9, job
    assert count > JOBS / 3
