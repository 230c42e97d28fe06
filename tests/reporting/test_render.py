"""All renderings say the same, also where fields are missing."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest
from modelspeed.core.errors import ArtifactError
from modelspeed.core.exit_codes import run_exit_code
from modelspeed.core.records import Comparison, JudgedScore, Quality
from modelspeed.reporting import console, html, markdown
from modelspeed.reporting import json as record_json
from modelspeed.reporting.comparison import comparison_table
from rich.console import Console
from sample_record import latency, record


def all_forms(shown):
    out = io.StringIO()
    console.render(shown, Console(file=out, width=200))
    return [out.getvalue(), markdown.render(shown), html.render(shown)]


def test_every_form_shows_verdict_speed_steps_and_what_was_left_alone():
    for text in all_forms(record()):
        for part in ("target met", "2.40x", "rolled back", "part of the model", "--threads 1",
                     "Runtimes side by side", "31.00 s"):  # fmt: skip
            assert part in text.replace("&#x27;", "'")


def test_no_significant_change_and_unknown_accuracy_are_said_plainly():
    shown = record(
        speedup=Comparison(1.0, 0.99, 1.01, "no significant change"),
        quality=Quality("agreement", False, agreement=0.97),
    )
    for text in all_forms(shown):
        assert "no significant change" in text
        assert "unknown (no data); agreement with the original 97.00 %" in text


def test_a_metric_that_is_no_fraction_is_no_percentage():
    shown = record(quality=Quality("mse", True, -0.5, -0.625, 0.97, 100))
    for text in all_forms(shown):
        assert "-0.5 -> -0.625 (drop 0.125, 100 examples)" in text.replace("&gt;", ">")


def test_a_bare_profile_renders():
    shown = record(kind="profile", verdict="none", final=None, speedup=None, quality=None, steps=(),
                   candidates=(), layers_after=(), left_alone=(), notices=())  # fmt: skip
    assert all("original" in text for text in all_forms(shown))


def test_a_record_survives_json_and_a_damaged_one_is_refused():
    assert record_json.loads(record_json.dumps(record())) == record()
    for text in ("", "[]", "{}", '{"kind": 3}', record_json.dumps(record()).replace("met", "mad")):
        with pytest.raises(ArtifactError):
            record_json.loads(text)


def test_comparing_a_record_with_itself_finds_no_change():
    assert "No significant change" in comparison_table(record(), record()).title
    assert comparison_table(record(final=latency(5.0)), record()).title.startswith(
        "B is 2.00x as fast"
    )


HALF = Quality("accuracy", True, 0.95, 0.93, 0.97, 300, 300, -0.004, 0.045, True)


def test_a_drop_within_chance_is_said_with_its_interval_and_what_judged():
    quality = replace(HALF, judged=JudgedScore(0.96, 0.955, 280))
    for text in all_forms(record(quality=quality, judge="half of it", max_drop=0.03)):
        assert "-0.4 to 4.5 points: the drop is within chance" in text
        assert "95.50 % (280 other examples)" in text and "half of it" in text
        assert "accuracy limit" not in text


@pytest.mark.parametrize(
    ("judged", "low", "said", "code"),
    [
        (0.955, -0.004, "accuracy limit in doubt", 5),
        (0.955, 0.012, "accuracy limit broken", 4),  # more than chance
        (0.93, -0.004, "accuracy limit broken", 4),  # the half that judged says so, too
    ],
)
def test_a_limit_that_one_half_alone_breaks_by_chance_is_in_doubt(judged, low, said, code):
    quality = replace(HALF, drop_low=low, judged=JudgedScore(0.96, judged, 280))
    shown = record(quality=quality, max_drop=0.01)
    for text in all_forms(shown):
        assert f"target met, {said}" in text
        assert ("by no more than chance" in text) == (code == 5)
    assert run_exit_code(shown, 0.01) == code and run_exit_code(shown, 0.02) == 0
    assert run_exit_code(replace(shown, verdict="missed"), 0.01) == 3


def test_without_a_half_that_judged_a_drop_above_the_limit_breaks_it():
    shown = record(quality=HALF, max_drop=0.01)
    assert shown.limit_broken and run_exit_code(shown, 0.01) == 4
