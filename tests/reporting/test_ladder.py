"""A ladder's record in all its forms."""

from __future__ import annotations

import csv
from dataclasses import replace
from xml.etree import ElementTree

import pytest
from modelspeed.core.ladder_record import BatchLatency, CascadeRecord, LadderRecord, Rung
from modelspeed.core.records import LeftAlone, Target
from modelspeed.reporting.charts import Line, chart
from modelspeed.reporting.ladder import ladder_csv, ladder_html, ladder_markdown
from modelspeed.reporting.ladder_facts import ladder_headline, ladder_tables
from sample_record import record as sample_record

HOSTILE = "<script>alert(1)</script>\x1b[31m|"


def rung(place, name, ms, accuracy, **more):
    rows = tuple(BatchLatency.of(b, [ms * b**0.5] * 9) for b in (1, 2, 4))
    return Rung(f"rungs/{place}-{name}", "0" * 64, accuracy or 0.5, 5_000_000, rows, accuracy,
                **more)  # fmt: skip


def record(*accuracies):
    rungs = (
        rung(0, "original", 8.0, accuracies[0]),
        rung(1, "2x", 4.0, accuracies[1], target=Target(speedup=2.0), verdict="met", speedup=2.1),
    )
    return LadderRecord(
        sample_record().machine, rungs, "accuracy", (CascadeRecord(1, 0, 0.5, 0.0, 0.9, 0.2, 100),),
        "1", "now", source=HOSTILE, memory_bytes=30_000_000, original_memory_bytes=20_000_000,
        left_out=(LeftAlone("4x", HOSTILE),), seconds=12.0,
    )  # fmt: skip


def test_all_of_it_is_said_in_markdown():
    text = ladder_markdown(record(0.9, 0.8))
    for words in ("2 rungs: 8 ms to 4 ms, 90.00 % to 80.00 % accuracy",
                  "30.0 MB, 1.50 times the original's (20.0 MB)", "`1-2x` answers, 20.00 % go up",
                  "| 0-original | 90.00 %", "2x, met", "## What is left out", "| batch 4 |",
    ):  # fmt: skip
        assert words in text
    assert "\x1b" not in text


def test_the_page_draws_both_charts_and_lets_nothing_of_a_name_run():
    text = ladder_html(record(0.9, 0.8))
    assert "<script" not in text and "\x1b" not in text and text.count("<svg") == 2
    for part in text.split("<svg")[1:]:
        drawn = ElementTree.fromstring("<svg" + part.partition("</svg>")[0] + "</svg>")
        assert drawn.findall("path") and drawn.findall("circle")
    assert ">0-original</text>" in text and "examples per second" in text


def test_a_row_of_csv_is_one_rung_at_one_batch():
    rows = list(csv.DictReader(ladder_csv(record(0.9, 0.8)).splitlines()))
    assert [(r["rung"], r["batch"], r["p50_ms"]) for r in rows][3] == ("1-2x", "1", "4.0")
    assert len(rows) == 6 and rows[0]["samples"] == "9"


def test_without_labels_the_worth_is_agreement():
    found = record(None, None)
    assert ladder_headline(found).endswith("50.00 % to 50.00 % agreement")
    assert ladder_tables(found)[0].head[1] == "agreement"


def test_a_ladder_of_the_original_alone_and_small_memory_say_no_ratio():
    found = record(0.9, 0.8)
    alone = replace(found, rungs=found.rungs[:1], cascades=(), original_memory_bytes=1000)
    assert ladder_headline(alone) == "1 rung: the original as it is"
    assert "times the original's" not in ladder_markdown(alone)
    assert ladder_html(alone).count("<svg") == 2


@pytest.mark.parametrize(("mb", "warns"), [(40, False), (41, True)])
def test_more_than_twice_the_memory_of_the_original_is_warned_of(mb, warns):
    found = replace(record(0.9, 0.8), memory_bytes=mb * 1_000_000)
    for text in (ladder_markdown(found), ladder_html(found)):
        assert ("take 2.05 times the original" in text) == warns
        assert ("`1-2x` takes the most, 5.0 MB" in text) == warns
        assert ("--rungs" in text and "--runtime plain" in text) == warns
    tiny = replace(found, original_memory_bytes=1000)
    assert "warning" not in ladder_markdown(tiny)


@pytest.mark.parametrize("log", [True, False])
def test_a_chart_keeps_to_its_frame(log):
    drawn = chart([Line("a", [(1, 5.0), (4, 50.0), (64, 7.0)])], "x", "y", log_y=log)
    for circle in ElementTree.fromstring(drawn).findall("circle"):
        assert 64 <= float(circle.get("cx")) <= 592 and 40 <= float(circle.get("cy")) <= 256
    assert chart([], "x", "y") == ""
    one = ElementTree.fromstring(chart([Line("a", [(1, 1.0)])], "x", "y", log_y=log))
    assert len(one.findall("circle")) == 1
