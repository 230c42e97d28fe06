"""All renderings say the same, also where fields are missing."""

from __future__ import annotations

import io

import pytest
from modelspeed.core.errors import ArtifactError
from modelspeed.core.records import Comparison, Quality
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
