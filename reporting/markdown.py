"""A record as markdown."""

from __future__ import annotations

from ..core.records import Record
from . import facts
from .text import clean


def render(record: Record) -> str:
    lines = [
        f"# modelspeed {record.kind}",
        "",
        f"**{facts.headline(record)}**",
        "",
        "| | |",
        "|---|---|",
    ]
    lines += [f"| {name} | {_cell(value)} |" for name, value in facts.key_facts(record)]
    for table in facts.tables(record):
        lines += ["", f"## {table.title}", "", line(table.head), line(("---",) * len(table.head))]
        lines += [line(cells) for cells in table.rows]
    lines += [
        "",
        f"Measured on {facts.machine(record)}.",
        f"modelspeed {record.version}, {record.created}",
        "",
    ]
    return clean("\n".join(lines))


def line(cells: tuple[str, ...]) -> str:
    return "| " + " | ".join(_cell(c) for c in cells) + " |"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
