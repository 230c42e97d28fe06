"""Reporting takes any record that the reader accepts; the reader refuses the rest by a sentence."""

from __future__ import annotations

import io
import json

import pytest
from any_record import json_of
from hypothesis import HealthCheck, assume, given, settings
from modelspeed.core.errors import ArtifactError
from modelspeed.core.items import Index
from modelspeed.core.records import Record
from modelspeed.core.records_json import from_json, to_json
from modelspeed.reporting import batch_index, console, html, markdown, pareto
from modelspeed.reporting import json as record_json
from modelspeed.reporting.comparison import comparison_table
from modelspeed.reporting.console import print_table
from rich.console import Console
from sample_record import record

QUICK = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))


def accepted(data, cls=Record):
    try:
        return from_json(cls, json.loads(json.dumps(data)))
    except ArtifactError as error:
        assert len(str(error)) < 400
        assume(False)


def written(*texts):
    for text in texts:
        text.encode("utf-8")
        assert "\x1b" not in text and "\x00" not in text


@QUICK
@given(json_of(Record), json_of(Record))
def test_any_record_that_is_read_is_shown_in_every_form(data, other):
    first, second = accepted(data), accepted(other)
    out = io.StringIO()
    console.render(first, Console(file=out, width=200))
    print_table(comparison_table(first, second), Console(file=out, width=200))
    written(out.getvalue(), markdown.render(first), html.render(first), pareto.render(first))
    assert record_json.loads(record_json.dumps(first)) == first


@QUICK
@given(json_of(Index))
def test_any_index_that_is_read_is_shown_in_every_form(data):
    shown = accepted(data, Index)
    written(batch_index.page(shown), batch_index.markdown(shown), batch_index.index_to_json(shown))


def test_a_name_that_no_file_can_hold_and_a_terminal_obeys_is_marked():
    shown = record(source="\ud800\x1b[31mx.pt")
    for text in (markdown.render(shown), html.render(shown)):
        written(text)
        assert "��[31mx.pt" in text


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("target.threads", 100_000), ("target.threads", -1), ("target.batch", -1),
        ("target.batch", 0), ("target.batch", 10**18), ("target.batch", 1e18),
        ("target.device", "meta"), ("target.device", "cuda:0\n"), ("target.ms", float("nan")),
        ("target.ms", -3.0), ("target.ms", 10**400), ("target.speedup", 0), ("target.speedup", 1),
        ("target.percentile", 99.9999999), ("target.runtime", "fast"), ("target.runtime", []),
        ("baseline.value_ms", float("inf")), ("baseline.samples_ms", [1.0, 0.0]),
        ("baseline.percentile", -1), ("parameters_before", -1), ("parameters_before", 10**400),
        ("seconds", float("nan")), ("machine.cores", 10**30), ("speedup.high", float("inf")),
        ("quality.final", float("nan")), ("verdict", {}),
    ],
)  # fmt: skip
def test_what_can_not_be_measured_is_refused_when_read_back(path, value):
    data = to_json(record())
    at = data
    *owners, leaf = path.split(".")
    for owner in owners:
        at = at[owner]
    at[leaf] = value
    with pytest.raises(ArtifactError, match=path.replace(".", r"\.")) as caught:
        record_json.loads(json.dumps(data))
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 100_000, "1" * 5000])
def test_a_text_that_python_can_not_parse_is_not_a_record(text):
    with pytest.raises(ArtifactError, match="record"):
        record_json.loads(text)


def test_settings_nested_without_end_are_refused():
    data = to_json(record())
    inner = data["steps"][0]["settings"]
    for _ in range(300):
        inner["a"] = inner = {}
    with pytest.raises(ArtifactError, match="nested deeper"):
        record_json.loads(json.dumps(data))
