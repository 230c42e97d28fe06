from __future__ import annotations

import math
import os

import pytest
from modelspeed.configs.machine import MachineFlags
from modelspeed.core.bounds import (
    DEVICE,
    MAX_THREADS,
    PERCENTILE,
    SEED,
    Score,
    Within,
    foreign_json,
)
from modelspeed.core.errors import ArtifactError, ConfigError, UsageError
from modelspeed.core.files import read_text
from modelspeed.core.records import Target
from modelspeed.core.records_json import from_json


def test_neutral_values_are_within_and_each_end_is_told():
    assert Within(0.0).unlike(0.0) == "" and Within(0.0).unlike(-1e-9) == "at least 0"
    assert PERCENTILE.unlike(50.0) == ""
    assert PERCENTILE.unlike(100.0) == "at least 0.1 and at most 99.9"
    assert Within(0, above=True).unlike(math.inf) == "a finite number above 0"
    assert Within().unlike(math.inf) == Within().unlike(math.nan) == "a finite number"
    assert SEED.unlike(-1) == "at least 0 and at most 9223372036854775807"
    assert DEVICE.unlike("cuda:3") == "" and "cuda:N" in DEVICE.unlike("meta")


def test_a_score_may_overflow_but_is_a_number():
    bound = Score.__metadata__[0]
    assert bound.unlike(-math.inf) == "" and bound.unlike(math.nan)


@pytest.mark.parametrize("threads", [0, MAX_THREADS + 1, 100_000])
def test_a_flag_and_a_stored_target_know_the_same_limits(threads):
    with pytest.raises(UsageError, match="threads"):
        MachineFlags(threads=threads)
    if threads:  # 0 is torch's own choice in a target
        with pytest.raises(ArtifactError, match="threads"):
            from_json(Target, {"threads": threads})


def test_what_is_plain_is_not_foreign():
    assert foreign_json({"a": [1, 2.5, None, True, "x"]}) == ""
    assert "bits" in foreign_json([10**400])


def test_of_thousands_of_problems_the_first_twenty_are_said_and_a_count():
    error = ConfigError([f"problem {i}." for i in range(9000)])
    lines = str(error).splitlines()
    assert len(error.problems) == 9000 and lines[0] == "problem 0." and len(lines) == 21
    assert lines[-1] == "and 8980 more problems."
    assert str(ConfigError(["a."] * 20)).count("\n") == 19


def test_a_pipe_is_refused_without_waiting_for_it(tmp_path):
    os.mkfifo(tmp_path / "report.json")
    with pytest.raises(ArtifactError, match="not a regular file"):
        read_text(tmp_path / "report.json")
    with pytest.raises((ArtifactError, OSError)):
        read_text(tmp_path)
