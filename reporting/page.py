"""The frame and the parts of HTML reports: one file that needs no network, its style inside."""

from __future__ import annotations

import html
from collections.abc import Iterable
from importlib.resources import files

from .facts import Table
from .text import clean

POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:"


def html_page(title: str, body: str, foot: str, scripts: str = "") -> str:
    """The whole file; `title` and `foot` are texts, `body` and `scripts` are HTML."""
    style = (files(__package__) / "report.css").read_text("utf-8")
    return clean(
        "<!doctype html>\n<html lang='en'><head><meta charset='utf-8'>"
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        "<meta name='viewport' content='width=device-width'>"
        f"<title>{escaped(title)}</title><style>{style}</style></head><body>\n{body}\n"
        f"<footer>{escaped(foot)}</footer>\n{scripts}</body></html>\n"
    )


def script_html(name: str) -> str:
    """A script of this room, to be run by the page."""
    return f"<script>{(files(__package__) / name).read_text('utf-8')}</script>"


def facts_html(pairs: Iterable[tuple[str, str]]) -> str:
    rows = "".join(
        f"<div><dt>{escaped(name)}</dt><dd>{escaped(value)}</dd></div>" for name, value in pairs
    )
    return f"<dl>{rows}</dl>"


def table_html(table: Table) -> str:
    head = "".join(f"<th>{escaped(h)}</th>" for h in table.head)
    rows = "".join(
        "<tr>" + "".join(f"<td>{escaped(c)}</td>" for c in row) + "</tr>" for row in table.rows
    )
    return (
        f"<section><h2>{escaped(table.title)}</h2><div class='wide'><table><thead><tr>{head}</tr>"
        f"</thead><tbody>{rows}</tbody></table></div></section>"
    )


def chart_html(title: str, content: str = "", name: str = "") -> str:
    """A section with a chart: drawn, or for a script to draw at `name`."""
    place = f" id='{name}'" if name else ""
    return f"<section><h2>{title}</h2><div class='chart'{place}>{content}</div></section>"


def escaped(value: object) -> str:
    return html.escape(str(value))
