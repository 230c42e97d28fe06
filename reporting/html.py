"""A record as one HTML file that needs no network: data, style and charts are inside."""

from __future__ import annotations

import html
import json
import math
from importlib.resources import files
from typing import Any

from ..core.records import Candidate, Latency, LayerCost, Record
from . import facts
from .text import clean

MAX_SAMPLES = 2000
POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:"


def render(record: Record) -> str:
    here = files(__package__)
    body = "\n".join([_head(record), _charts(), *(table_html(t) for t in facts.tables(record))])
    data = json.dumps(_plain(_data(record)), allow_nan=False)
    data = data.replace("</", "<\\/").replace("<!--", "<\\!--")
    return clean(
        "<!doctype html>\n<html lang='en'><head><meta charset='utf-8'>"
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        "<meta name='viewport' content='width=device-width'>"
        f"<title>modelspeed: {_text(record.source)}</title>"
        f"<style>{(here / 'report.css').read_text('utf-8')}</style></head><body>\n{body}\n"
        f"<footer>Measured on {_text(facts.machine(record))}. modelspeed {_text(record.version)}, "
        f"{_text(record.created)}</footer>\n"
        f"<script type='application/json' id='data'>{data}</script>"
        f"<script>{(here / 'report.js').read_text('utf-8')}</script></body></html>\n"
    )


def _head(record: Record) -> str:
    facts_list = "".join(
        f"<div><dt>{_text(n)}</dt><dd>{_text(v)}</dd></div>" for n, v in facts.key_facts(record)
    )
    return (
        f"<header><p class='badge {record.verdict}'>{_text(facts.both_verdicts(record))}</p>"
        f"<h1>{_text(record.summary or record.kind)}</h1></header><dl>{facts_list}</dl>"
    )


def _charts() -> str:
    names = {
        "distribution": "Latency, before and after",
        "candidates": "Latency against accuracy of all candidates",
        "layers": "Time by layer, before and after",
    }
    return "<main>" + "".join(
        f"<section><h2>{title}</h2><div class='chart' id='{name}'></div></section>"
        for name, title in names.items()
    ) + "</main>"  # fmt: skip


def table_html(table: facts.Table) -> str:
    head = "".join(f"<th>{_text(h)}</th>" for h in table.head)
    rows = "".join(
        "<tr>" + "".join(f"<td>{_text(c)}</td>" for c in row) + "</tr>" for row in table.rows
    )
    return (
        f"<section><h2>{_text(table.title)}</h2><div class='wide'><table><thead><tr>{head}</tr>"
        f"</thead><tbody>{rows}</tbody></table></div></section>"
    )


def _data(record: Record) -> dict[str, object]:
    known = record.quality is None or record.quality.known
    return {
        "target": facts.target_ms(record),
        "percentile": record.target.percentile,
        "before": _latency(record.baseline),
        "after": _latency(record.final),
        "known": known,
        "candidates": [_candidate(c) for c in record.candidates],
        "layersBefore": [_layer(c) for c in record.layers_before],
        "layersAfter": [_layer(c) for c in record.layers_after],
    }


def _latency(latency: Latency | None) -> dict[str, object] | None:
    if latency is None:
        return None
    # The record keeps every sample; the chart needs an even pick of them.
    every = -(-len(latency.samples_ms) // MAX_SAMPLES) or 1
    return {"value": latency.value_ms, "samples": list(latency.samples_ms[::every])}


def _candidate(c: Candidate) -> dict[str, object]:
    return {
        "label": c.label, "ms": c.latency_ms, "low": c.latency_low_ms, "high": c.latency_high_ms,
        "accuracy": c.accuracy, "chosen": c.chosen,
    }  # fmt: skip


def _layer(c: LayerCost) -> dict[str, object]:
    return {"name": c.name, "op": c.op, "ms": c.ms}


def _plain(value: Any) -> Any:
    """With null for infinities, which are not JSON to a browser."""
    if isinstance(value, dict):
        return {name: _plain(v) for name, v in value.items()}
    if isinstance(value, list):
        return [_plain(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _text(value: str) -> str:
    return html.escape(str(value))
