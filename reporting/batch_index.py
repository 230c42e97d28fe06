"""The index of a batch: one row for each checkpoint, as markdown, HTML and JSON."""

from __future__ import annotations

import json
from collections import Counter
from urllib.parse import quote

from ..core.items import WRITTEN, Index, Item
from ..core.records_json import to_json
from . import facts
from .markdown import line
from .page import escaped, html_page, script_html
from .text import clean

HEAD = (
    "checkpoint", "status", "original", "result", "speed-up", "accuracy", "parameters", "took",
    "why",
)  # fmt: skip


def index_to_json(index: Index) -> str:
    return json.dumps(to_json(index), indent=1) + "\n"


def index_headline(index: Index) -> str:
    """`45 of 50 met; 3 failed, 2 missed`: what counts first."""
    counts = Counter(item.status for item in index.items)
    good = counts.pop("met", 0) + counts.pop("done", 0)
    rest = ", ".join(f"{count} {status}" for status, count in counts.most_common())
    return f"{good} of {len(index.items)} met" + (f"; {rest}" if rest else "")


def cells(item: Item) -> tuple[str, ...]:
    factor = f"{item.speedup:.2f}x" if item.speedup is not None else "–"
    before, after = item.parameters_before, item.parameters_after
    took = f"{item.seconds:.0f} s" + (" (earlier)" if item.reused else "")
    return (
        item.name, item.status, facts.ms(item.original_ms), facts.ms(item.result_ms), factor,
        _accuracy(item), f"{before:,} -> {after:,}" if before else "–", took,
        item.reason or item.summary,
    )  # fmt: skip


def _accuracy(item: Item) -> str:
    if item.accuracy_before is None or item.accuracy_after is None:
        return "unknown" if item.status in WRITTEN else "–"
    if item.metric in facts.FRACTIONS:
        return f"{facts.percent(item.accuracy_before)} -> {facts.percent(item.accuracy_after)}"
    return f"{item.accuracy_before:.4g} -> {item.accuracy_after:.4g} ({item.metric})"


def index_table(index: Index) -> facts.Table:
    """The columns that fit on a terminal."""
    rows = tuple((name, status, f"{before} -> {after}" if after != "–" else "–", accuracy, why)
                 for name, status, before, after, _, accuracy, _, _, why
                 in map(cells, index.items))  # fmt: skip
    head = ("checkpoint", "status", "latency", "accuracy", "why")
    return facts.Table(index_headline(index), head, rows)


def markdown(index: Index) -> str:
    lines = ["# modelspeed batch", "", f"**{index_headline(index)}**", "", line(HEAD)]
    lines += [line(("---",) * len(HEAD)), *(line(cells(item)) for item in index.items)]
    return clean("\n".join([*lines, "", _foot(index), ""]))


def page(index: Index) -> str:
    """One HTML file that needs no network; buttons show the rows of one status alone."""
    head = "".join(f"<th>{escaped(name)}</th>" for name in HEAD)
    counts = Counter(item.status for item in index.items)
    buttons = "".join(
        f"<button data-status='{escaped(s)}'>{escaped(s)} ({n})</button> "
        for s, n in counts.most_common()
    )
    body = (
        f"<header><h1>{escaped(index_headline(index))}</h1></header>\n"
        f"<section><p id='filters'><button data-status=''>all ({len(index.items)})</button> "
        f"{buttons}<input id='search' type='search' placeholder='name or reason'></p>"
        f"<div class='wide'><table><thead><tr>{head}</tr></thead><tbody>"
        + "".join(_row(item) for item in index.items)
        + "</tbody></table></div></section>"
    )
    return html_page("modelspeed batch", body, _foot(index), script_html("index.js"))


def _row(item: Item) -> str:
    name, *rest = cells(item)
    link = f"<a href='{_address(name)}/report.html'>{escaped(name)}</a>"
    first = link if item.status in WRITTEN else escaped(name)
    body = "".join(f"<td>{escaped(cell)}</td>" for cell in rest)
    return f"<tr data-status='{escaped(item.status)}'><td>{first}</td>{body}</tr>\n"


def _address(name: str) -> str:
    """The folder's bytes as they are on disk; a name of a record may be of no folder."""
    try:
        return quote(name.encode("utf-8", "surrogateescape"))
    except UnicodeEncodeError:
        return quote(clean(name))


def _foot(index: Index) -> str:
    m = index.machine
    return (
        f"{index.seconds:.0f} s in all, on {m.cpu}, {m.device}, torch {m.torch}, {m.system}. "
        f"modelspeed {index.version}, {index.created}"
    )
