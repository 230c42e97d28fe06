"""Arrivals of a simulation."""

from __future__ import annotations

from itertools import pairwise
from statistics import mean, pvariance

import pytest
from modelspeed.core.errors import UsageError
from modelspeed.runtime.ladder.arrivals import arrivals_of


def squared_variation(times):
    gaps = [b - a for a, b in pairwise(times)]
    return pvariance(gaps) / mean(gaps) ** 2


def test_poisson_arrivals_have_their_rate_and_independent_gaps():
    times = arrivals_of("poisson:200", 50.0)
    assert len(times) == pytest.approx(10_000, rel=0.05) and times == sorted(times)
    assert squared_variation(times) == pytest.approx(1.0, abs=0.1)
    assert times == arrivals_of("poisson:200", 50.0) != arrivals_of("poisson:200", 50.0, seed=1)


def test_bursts_vary_more_and_have_the_mean_of_both_rates():
    times = arrivals_of("mmpp:20,380,1", 400.0)
    assert len(times) == pytest.approx(80_000, rel=0.1) and times == sorted(times)
    assert squared_variation(times) > 3.0 and times[-1] < 400_000


def test_recorded_arrivals_begin_at_zero_in_order_of_time(tmp_path):
    file = tmp_path / "a.csv"
    file.write_text("seconds,who\n12.5,a\n12.0,b\n13.0,c\n")
    assert arrivals_of(str(file), 1.0) == [0.0, 500.0, 1000.0]


@pytest.mark.parametrize(
    "text", ["poisson:0", "poisson:x", "mmpp:1,2", "nowhere.csv", "poisson:1e9"]
)
def test_what_is_no_load_is_refused(text):
    with pytest.raises(UsageError, match="--arrivals"):
        arrivals_of(text, 10.0)


def test_a_file_without_times_is_refused_with_the_line(tmp_path):
    file = tmp_path / "a.csv"
    file.write_text("seconds\n1\nsoon\n")
    with pytest.raises(UsageError, match="line 3"):
        arrivals_of(str(file), 1.0)
    file.write_text("seconds\n")
    with pytest.raises(UsageError, match="no times"):
        arrivals_of(str(file), 1.0)
