from __future__ import annotations

import json
import re

from modelspeed.core.exit_codes import batch_exit_code
from modelspeed.core.items import Index, Item
from modelspeed.core.records_json import from_json
from modelspeed.reporting import batch_index
from sample_record import record


def index():
    one = record()
    items = (
        Item("a&b", "a.pt", "k", "met", seconds=12.0).measured(one),
        Item("lost", "b.pt", "l", "killed", reason="<script>alert(1)</script> | x", code=-9),
        Item("near", "c.pt", "m", "missed", code=3, reused=True).measured(one),
    )
    return Index("2026-11-24T00:00:00+00:00", "0.1.0", one.machine, items, 30.0)


def test_json_comes_back_as_it_was():
    assert from_json(Index, json.loads(batch_index.index_to_json(index())), "index") == index()


def test_markdown_and_the_terminal_say_what_happened_to_each():
    text = batch_index.markdown(index())
    assert "**1 of 3 met; 1 killed, 1 missed**" in text and "12 s" in text and "(earlier)" in text
    assert "| lost | killed | – | – | – | – | – | 0 s | <script>alert(1)</script> \\| x |" in text
    rows = batch_index.index_table(index()).rows
    assert rows[0][:3] == ("a&b", "met", "6.12 ms -> 2.55 ms") and rows[1][2] == "–"


def test_the_page_needs_no_network_filters_by_status_and_runs_no_reason():
    page = batch_index.page(index())
    assert "<script>alert" not in page and page.count("<script>") == 1
    assert not re.search(r"(src|href)='?(https?:|//)", page)
    assert "<button data-status='killed'>killed (1)</button>" in page
    assert page.count("<tr data-status=") == 3
    assert "href='a%26b/report.html'" in page and "lost/report.html" not in page


def test_the_most_telling_exit_code_wins():
    def code(*statuses):
        return batch_exit_code([Item("a", "a", "k", s) for s in statuses])

    assert code() == code("met", "done") == 0
    assert code("met", "inconclusive") == 5 and code("inconclusive", "missed") == 3
    assert code("missed", "accuracy limit broken") == 4
    assert code("accuracy limit broken", "out of memory") == code("stopped") == 1


def test_a_run_without_a_target_is_done_not_met():
    assert Item("a", "a", "k", "met").measured(record(verdict="none")).status == "done"
