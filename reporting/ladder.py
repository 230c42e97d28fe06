"""A ladder's record as markdown, HTML and CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping

from ..core.ladder_record import LadderRecord
from . import ladder_facts as of
from .charts import Line, chart
from .facts import foot
from .markdown import markdown_report
from .page import chart_html, escaped, facts_html, html_page, table_html
from .text import clean

CSV_HEAD = ("rung", "accuracy", "agreement", "memory_bytes", "batch", "p50_ms", "p95_ms", "p99_ms",
            "samples")  # fmt: skip


def ladder_reports(record: LadderRecord) -> Mapping[str, str]:
    """Renderings beside `ladder.json`, by name."""
    return {"report.md": ladder_markdown(record), "report.html": ladder_html(record)}


def ladder_markdown(record: LadderRecord) -> str:
    return markdown_report(
        "ladder", of.ladder_headline(record), of.ladder_key_facts(record),
        of.ladder_tables(record), foot(record),
    )  # fmt: skip


def ladder_html(record: LadderRecord) -> str:
    body = "\n".join([
        f"<header><h1>{escaped(of.ladder_headline(record))}</h1></header>",
        facts_html(of.ladder_key_facts(record)),
        chart_html("Accuracy against latency", _staircase(record)),
        chart_html("Throughput by batch size", _throughput(record)),
        *map(table_html, of.ladder_tables(record)),
    ])  # fmt: skip
    return html_page(f"modelspeed: {record.source}", body, " ".join(foot(record)))


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
