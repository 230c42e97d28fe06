from __future__ import annotations

import json

import pytest
from items import plan
from modelspeed.batch.journal import NAME, BatchJournal
from modelspeed.batch.process import ending


def test_rows_come_back_and_a_line_that_is_no_row_is_left_out(tmp_path):
    with BatchJournal.open(tmp_path) as journal:
        journal.begin("a", "k", 1)
        journal.end(plan(tmp_path, "a", "met", key="k").item("met", seconds=1.5))
        journal.begin("b", "l", 1)
    with (tmp_path / NAME).open("a") as file:
        file.write('[]\n{"event": "end", "item": {"name": "z", "new": 1}}\n{"event": "be')
    with BatchJournal.open(tmp_path) as journal:
        assert journal.ended["a"].seconds == 1.5 and set(journal.ended) == {"a"}
        assert journal.begun["b"][0] == "l"
        journal.begin("c", "m", 1)
    assert json.loads((tmp_path / NAME).read_text().splitlines()[-1])["name"] == "c"


@pytest.mark.parametrize(
    ("code", "text", "status", "reason"),
    [
        (0, "", "met", ""),
        (3, "", "missed", ""),
        (4, "modelspeed: the drop is above.", "accuracy limit broken", "the drop is above."),
        (5, "", "inconclusive", ""),
        (2, "modelspeed: `a` is 1;\nmodelspeed: `b` too.", "failed", "`a` is 1; `b` too."),
        (1, "Traceback\nValueError: x", "failed", "ValueError: x"),
        (1, "RuntimeError: DefaultCPUAllocator: can't allocate memory", "out of memory",
         "RuntimeError: DefaultCPUAllocator: can't allocate memory"),
        (-11, "", "killed", "ended by SIGSEGV."),
    ],
)  # fmt: skip
def test_exit_codes_and_words_become_a_status_and_a_reason(code, text, status, reason):
    assert ending(code, text) == (status, reason)
