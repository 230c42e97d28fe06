"""A ladder's record as markdown, HTML and CSV."""

from __future__ import annotations

import csv
import html
import io
from collections.abc import Mapping
from importlib.resources import files

from ..core.ladder_record import LadderRecord
from . import ladder_facts as of
from .charts import Line, chart
from .facts import machine_text
from .html import POLICY, table_html
from .markdown import line
from .text import clean

CSV_HEAD = ("rung", "accuracy", "agreement", "memory_bytes", "batch", "p50_ms", "p95_ms", "p99_ms",
            "samples")  # fmt: skip


def ladder_reports(record: LadderRecord) -> Mapping[str, str]:
    """Renderings beside `ladder.json`, by name."""
    return {"report.md": ladder_markdown(record), "report.html": ladder_html(record)}


def ladder_markdown(record: LadderRecord) -> str:
    rows = ["# modelspeed ladder", "", f"**{of.ladder_headline(record)}**", ""]
    rows += ["| | |", "|---|---|"]
    rows += [line(pair) for pair in of.ladder_key_facts(record)]
    for table in of.ladder_tables(record):
        rows += ["", f"## {table.title}", "", line(table.head), line(("---",) * len(table.head))]
        rows += [line(cells) for cells in table.rows]
    return clean("\n".join([*rows, "", *_foot(record), ""]))


def ladder_html(record: LadderRecord) -> str:
    here = files(__package__)
    pairs = "".join(
        f"<div><dt>{_text(n)}</dt><dd>{_text(v)}</dd></div>" for n, v in of.ladder_key_facts(record)
    )
    title = _text(of.ladder_headline(record))
    body = "\n".join([
        f"<header><h1>{title}</h1></header><dl>{pairs}</dl>",
        _section("Accuracy against latency", _staircase(record)),
        _section("Throughput by batch size", _throughput(record)),
        *map(table_html, of.ladder_tables(record)),
    ])  # fmt: skip
    return clean(
        "<!doctype html>\n<html lang='en'><head><meta charset='utf-8'>"
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        "<meta name='viewport' content='width=device-width'>"
        f"<title>modelspeed: {_text(record.source)}</title>"
        f"<style>{(here / 'report.css').read_text('utf-8')}</style></head><body>\n{body}\n"
        f"<footer>{_text(' '.join(_foot(record)))}</footer></body></html>\n"
    )


def ladder_csv(record: LadderRecord) -> str:
    """A row for each rung and batch size."""
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(CSV_HEAD)
    for rung in record.rungs:
        for at in rung.latencies:
            rows.writerow((
                rung.name, rung.accuracy, rung.agreement, rung.memory_bytes, at.batch, at.p50_ms,
                at.p95_ms, at.p99_ms, len(at.samples_ms),
            ))  # fmt: skip
    return clean(text.getvalue().rstrip("\n"))


def _staircase(record: LadderRecord) -> str:
    points = [
        (rung.at(record.batch).p50_ms, score)
        for rung, score in zip(record.rungs, record.scores, strict=True)
    ]
    names = [rung.name for rung in record.rungs]
    stair = Line("rungs", points[::-1], True, names[::-1])
    return chart([stair], f"median ms at batch {record.batch}", record.score_name)


def _throughput(record: LadderRecord) -> str:
    lines = [
        Line(rung.name, [(row.batch, 1000.0 * row.batch / row.p50_ms) for row in rung.latencies])
        for rung in record.rungs
    ]
    return chart(lines, "batch", "examples per second", log_y=True)


def _section(title: str, content: str) -> str:
    return f"<section><h2>{title}</h2><div class='chart'>{content}</div></section>"


def _foot(record: LadderRecord) -> list[str]:
    return [
        f"Measured on {machine_text(record.machine)}.",
        f"modelspeed {record.version}, {record.created}",
    ]


def _text(value: str) -> str:
    return html.escape(str(value))
