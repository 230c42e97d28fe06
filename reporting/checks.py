"""A check as a table, as markdown for a job's summary and as JUnit XML; a machine's examination."""

from __future__ import annotations

from collections import Counter
from xml.etree import ElementTree as Xml

from ..core.checks import Case, Check, Examination
from . import facts
from .markdown import line
from .text import clean

# What XML 1.0 can't hold, even escaped, besides control characters.
_FORBIDDEN = {0xFFFE: "�", 0xFFFF: "�"}


def check_table(check: Check) -> facts.Table:
    rows = tuple((case.name, case.outcome, case.text) for case in check.cases)
    return facts.Table(f"Check of {check.folder}", ("what", "outcome", "found"), rows)


def check_summary(check: Check) -> str:
    """Markdown, for `$GITHUB_STEP_SUMMARY` and the like."""
    head = ("what", "outcome", "found")
    lines = [f"### modelspeed check `{check.folder}`", "", line(head), line(("---",) * 3)]
    lines += [line((c.name, f"**{c.outcome}**", c.text)) for c in check.cases]
    m = check.machine
    where = f"Measured on {m.cpu}, {m.threads} of {m.cores} cores, {m.device}, torch {m.torch}."
    notes = [f"Warning `{n.code}`: {n.seen} {n.remedy}" for n in check.latency.notices]
    return clean("\n".join([*lines, "", where, *notes, ""]))


def junit(folder: str, cases: tuple[Case, ...], error: str | None = None) -> str:
    """JUnit XML; `error` is why the check could not be made."""
    counts = Counter(case.outcome for case in cases)
    suite = Xml.Element("testsuite", {
        "name": f"modelspeed check {_clean(folder)}", "tests": str(len(cases) + bool(error)),
        "failures": str(counts["failed"] + counts["inconclusive"]), "errors": str(int(bool(error))),
        "skipped": str(counts["skipped"]), "time": f"{sum(c.seconds for c in cases):.2f}",
    })  # fmt: skip
    for case in cases:
        row = Xml.SubElement(suite, "testcase", _case(folder, case.name, case.seconds))
        text = _clean(case.text)
        if case.outcome in ("failed", "inconclusive"):
            Xml.SubElement(row, "failure", {"type": case.outcome, "message": text}).text = text
        elif case.outcome == "skipped":
            Xml.SubElement(row, "skipped", {"message": text})
        else:
            Xml.SubElement(row, "system-out").text = text
    if error:
        row = Xml.SubElement(suite, "testcase", _case(folder, "check", 0.0))
        Xml.SubElement(row, "error", {"message": _clean(error)}).text = _clean(error)
    suites = Xml.Element("testsuites")
    suites.append(suite)
    return "<?xml version='1.0' encoding='utf-8'?>\n" + Xml.tostring(suites, "unicode") + "\n"


def _case(folder: str, name: str, seconds: float) -> dict[str, str]:
    return {"classname": _clean(folder), "name": name, "time": f"{seconds:.2f}"}


def _clean(text: str) -> str:
    return clean(text).translate(_FORBIDDEN)


def examination(examined: Examination) -> facts.Table:
    rows = tuple((f.what, f.state, f.found, f.remedy) for f in examined.findings)
    return facts.Table("This machine, for measuring", ("what", "", "found", "what helps"), rows)
