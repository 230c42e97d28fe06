"""A record on a terminal."""

from __future__ import annotations

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ..core.records import Record
from . import facts
from .text import clean

_COLORS = {"met": "green", "missed": "red", "inconclusive": "yellow", "none": "cyan"}


def render(record: Record, console: Console) -> None:
    color = _COLORS[record.verdict]
    console.print(f"[bold {color}]{_text(facts.headline(record))}[/]")
    grid = Table.grid(padding=(0, 2))
    for name, value in facts.key_facts(record):
        grid.add_row(f"[dim]{_text(name)}[/]", _text(value))
    console.print(grid)
    for table in facts.tables(record):
        print_table(table, console)
    console.print(f"[dim]measured on {_text(facts.machine(record))}[/]")


def print_table(table: facts.Table, console: Console) -> None:
    shown = Table(title=_text(table.title), title_justify="left", title_style="bold", expand=False)
    for name in table.head:
        shown.add_column(name, overflow="fold")
    for row in table.rows:
        shown.add_row(*(_text(cell) for cell in row))
    console.print(shown)


def _text(value: str) -> str:
    return escape(clean(value))
