from __future__ import annotations

from xml.etree import ElementTree

from modelspeed.core.checks import Case, Check
from modelspeed.core.exit_codes import check_exit_code
from modelspeed.core.records_json import from_json, to_json
from modelspeed.reporting import checks
from sample_record import record

CASES = (
    Case("artifact", "passed", "fits", seconds=1.5),
    Case("latency", "failed", "p50 is 3 ms, <target> 2 ms | & more\x00", 3),
    Case("regression", "inconclusive", "other machine", 5),
    Case("accuracy", "skipped", "no data"),
)


def check():
    one = record()
    return Check("out", "2026-11-24", "0.1.0", one.machine, one.target, CASES, one.baseline)


def test_json_comes_back_as_it_was():
    assert from_json(Check, to_json(check()), "check") == check()


def test_junit_counts_and_says_each_outcome_and_holds_any_text():
    suite = ElementTree.fromstring(checks.junit("out\x01", CASES)).find("testsuite")
    assert {k: suite.get(k) for k in ("tests", "failures", "errors", "skipped")} == {
        "tests": "4", "failures": "2", "errors": "0", "skipped": "1",
    }  # fmt: skip
    rows = {row.get("name"): [child.tag for child in row] for row in suite}
    assert rows == {"artifact": ["system-out"], "latency": ["failure"], "regression": ["failure"],
                    "accuracy": ["skipped"]}  # fmt: skip
    assert "<target> 2 ms | & more" in suite.find("testcase/failure").get("message")


def test_a_check_that_could_not_be_made_is_an_error():
    suite = ElementTree.fromstring(checks.junit("out", (), "no artifact")).find("testsuite")
    assert (suite.get("tests"), suite.get("errors")) == ("1", "1")
    assert suite.find("testcase/error").get("message") == "no artifact"


def test_the_summary_is_a_table_that_no_text_breaks():
    text = checks.check_summary(check())
    rows = [t for t in text.splitlines() if t.startswith("|")]
    assert len(rows) == 2 + len(CASES) and "**failed**" in text and "\\| & more" in text


def test_the_most_telling_code_wins():
    def code(*pairs):
        return check_exit_code([Case("x", outcome, "", number) for outcome, number in pairs])

    assert code(("passed", 0), ("skipped", 0)) == 0
    assert code(("failed", 3), ("failed", 4)) == 4 and code(("inconclusive", 5)) == 5
    assert code(("inconclusive", 5), ("failed", 3)) == 3
