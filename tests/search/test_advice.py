"""Where target and accuracy limit collide, the report names what would be accepted."""

from __future__ import annotations

from dataclasses import replace

import pytest
from modelspeed.core.exit_codes import run_exit_code
from modelspeed.core.records import Comparison, Latency, Machine, Quality, Record, Target
from modelspeed.reporting.facts import headline, key_facts
from modelspeed.search.advice import advice
from modelspeed.search.choice import Standing

MACHINE = Machine("a cpu", 2, 2, "cpu", "float32", "2", "3", "linux")
LIMIT = 0.01


def record(verdict, ms, drop, target=None, slower=1.0):
    """The original takes 10 ms on the quiet machine, and `slower` times that when measured."""
    gain = Comparison(10.0 / ms, 10.0 / ms, 10.0 / ms, "faster")
    final = Latency(50.0, *(3 * [slower * ms]))
    return Record(
        "tune", "", "", "", "", MACHINE, target or Target(ms=5.0), verdict, "a summary",
        Latency(50.0, *(3 * [slower * 10.0])), final, gain,
        Quality("accuracy", True, 0.9, 0.9 - drop, 1.0, 100), reference_ms=10.0, max_drop=LIMIT,
    )  # fmt: skip


def test_met_within_the_limit_asks_for_nothing():
    made = record("met", 4.9, 0.004)
    assert advice(made, [Standing(0.2, 0.3)]) == ()
    assert headline(made) == "target met: a summary" and run_exit_code(made, LIMIT) == 0


def test_a_broken_limit_is_in_the_headline_and_both_ways_out_are_named():
    made = record("met", 4.9, 0.0316)
    known = [Standing(1.22, 0.008), Standing(1.5), Standing(0.5, 0.2)]
    assert headline(made) == "target met, accuracy limit broken: a summary"
    assert run_exit_code(made, LIMIT) == 4
    assert advice(made, known) == (
        "5 ms costs 3.16 points: `--max-drop 0.0316` accepts that",
        "within 1 point 6.1 ms is reached: `--target-ms 6.1`",
    )
    shown = dict(key_facts(replace(made, advice=("use a flag",))))
    assert shown["what would be accepted"] == "use a flag"


def test_a_missed_target_names_the_latency_that_is_reached_within_the_limit():
    made = record("missed", 6.1, 0.004)
    assert advice(made, [Standing(1.5)]) == ("within 1 point 6.1 ms is reached: `--target-ms 6.1`",)
    assert headline(made).startswith("target missed:") and run_exit_code(made, LIMIT) == 3


def test_of_a_speed_up_the_flag_is_a_speed_up():
    made = record("missed", 6.1, 0.004, Target(speedup=2.0))
    assert advice(made, [])[0].endswith("1.63x is reached: `--target-speedup 1.63`")
    made = record("met", 4.0, 0.04, Target(speedup=2.0))
    assert advice(made, [Standing(2.0)])[1].endswith("nothing faster than the original is known")


@pytest.mark.parametrize("target", [Target(), Target(fastest=True)])
def test_without_a_target_there_is_nothing_to_advise(target):
    assert advice(record("none", 6.1, 0.004, target), [Standing(1.5)]) == ()


def test_both_readings_are_stated_where_the_machine_was_slower():
    made = record("met", 4.9, 0.0, slower=1.3)
    assert made.judged.high_ms == pytest.approx(4.9)
    text = dict(key_facts(made))["on the quiet machine"]
    assert "original 10 ms, result 4.9 ms" in text and "1.30x as slow" in text
    assert "on the quiet machine" not in dict(key_facts(record("met", 4.9, 0.0)))


def test_what_was_measured_is_a_bound_whatever_the_ratio_says():
    """Disturbances only add time: the original may have been hit harder than the result."""
    made = replace(record("met", 4.9, 0.0), speedup=Comparison(1.9, 1.8, 2.0, "faster"))
    assert made.judged.value_ms == pytest.approx(4.9)
