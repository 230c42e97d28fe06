"""A record as one HTML file that needs no network: data, style and charts are inside."""

from __future__ import annotations

import json
import math
from typing import Any

from ..core.records import Candidate, Latency, LayerCost, Record
from . import facts
from .page import chart_html, escaped, facts_html, html_page, script_html, table_html

MAX_SAMPLES = 2000


def render(record: Record) -> str:
    body = "\n".join([_head(record), _charts(), *map(table_html, facts.tables(record))])
    data = json.dumps(_plain(_data(record)), allow_nan=False)
    data = data.replace("</", "<\\/").replace("<!--", "<\\!--")
    scripts = f"<script type='application/json' id='data'>{data}</script>{script_html('report.js')}"
    return html_page(f"modelspeed: {record.source}", body, " ".join(facts.foot(record)), scripts)


def _head(record: Record) -> str:
    verdict = escaped(facts.both_verdicts(record))
    return (
        f"<header><p class='badge {record.verdict}'>{verdict}</p>"
        f"<h1>{escaped(record.summary or record.kind)}</h1></header>"
        f"{facts_html(facts.key_facts(record))}"
    )


def _charts() -> str:
    names = {
        "distribution": "Latency, before and after",
        "candidates": "Latency against accuracy of all candidates",
        "layers": "Time by layer, before and after",
    }
    charts = "".join(chart_html(title, name=name) for name, title in names.items())
    return f"<main>{charts}</main>"


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
