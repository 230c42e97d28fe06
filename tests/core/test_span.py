from __future__ import annotations

import pytest
from modelspeed.core.span import Span, spans_from_json, spans_to_json


@pytest.mark.parametrize(
    ("text", "span", "words"),
    [("1..512", Span(1, 512), "1 to 512"), ("7..", Span(7), "7 or more")],
)
def test_a_span_is_written_by_its_ends(text: str, span: Span, words: str) -> None:
    assert Span.parse(text) == span and span.words() == words


@pytest.mark.parametrize("text", ["", "5", "..5", "0..4", "5..4", "a..b", "1..2..3", "²..4"])
def test_what_has_no_ends_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="varying size"):
        Span.parse(text)


def test_the_sizes_beside_the_one_shown_are_multiples_within_the_ends() -> None:
    assert Span(1, None, 32).ends(64) == (32, 128)
    assert Span(5, 20).ends(16) == (5, 20)
    assert Span(3, 1000).ends(16) == (3, 32)
    assert Span(16, 16).ends(16) == (16, 16)
    taken = [n for n in range(200) if Span(33, 130, 32).takes(n)]
    assert taken == [64, 96, 128]


def test_spans_survive_a_manifest() -> None:
    spans = {1: Span(1, 512, 2, "s7"), 3: Span(4)}
    assert spans_from_json(spans_to_json(spans)) == spans


@pytest.mark.parametrize(
    "made_up",
    [[], {"x": {}}, {"1": {"low": 0}}, {"1": {"low": True}}, {"1": {"low": 5, "high": 4}},
     {"1": {"code": "1"}}, {"1": 5}, {"1": {"multiple": 1 << 40}}, {"1": {"tied": 5}}],
)  # fmt: skip
def test_a_made_up_span_is_refused(made_up: object) -> None:
    with pytest.raises(ValueError, match=r"varies|varying"):
        spans_from_json(made_up)
