"""A record as markdown, and the form of markdown reports."""

from __future__ import annotations

from collections.abc import Iterable

from ..core.records import Record
from . import facts
from .text import clean


def render(record: Record) -> str:
    return markdown_report(
        record.kind, facts.headline(record), facts.key_facts(record), facts.tables(record),
        facts.foot(record),
    )  # fmt: skip


def markdown_report(
    kind: str,
    headline: str,
    pairs: Iterable[tuple[str, str]],
    tables: Iterable[facts.Table],
    foot: Iterable[str],
) -> str:
    """The whole text of a report of that `kind`."""
    lines = [f"# modelspeed {kind}", "", f"**{headline}**", "", "| | |", "|---|---|"]
    lines += [line(pair) for pair in pairs]
    for table in tables:
        lines += ["", f"## {table.title}", "", line(table.head), line(("---",) * len(table.head))]
        lines += [line(cells) for cells in table.rows]
    return clean("\n".join([*lines, "", *foot, ""]))


def line(cells: tuple[str, ...]) -> str:
    return "| " + " | ".join(_cell(c) for c in cells) + " |"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
