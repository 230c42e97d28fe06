"""Two records side by side."""

from __future__ import annotations

from ..core.records import Record
from . import facts


def comparison_table(a: Record, b: Record) -> facts.Table:
    """The key facts of both, row by row; a note where they come from different machines."""
    left, right = dict(facts.key_facts(a)), dict(facts.key_facts(b))
    names = list(dict.fromkeys((*left, *right)))
    rows = [(n, left.get(n, "–"), right.get(n, "–")) for n in names]
    rows.insert(0, ("verdict", facts.VERDICTS[a.verdict], facts.VERDICTS[b.verdict]))
    if a.machine.fingerprint != b.machine.fingerprint:
        rows.append(("machine", a.machine.fingerprint, b.machine.fingerprint))
    return facts.Table(_title(a, b), ("", "A", "B"), tuple(rows))


def _title(a: Record, b: Record) -> str:
    if a.machine.fingerprint != b.machine.fingerprint:
        return "Measured on different machines: latencies do not compare"
    first, second = a.final or a.baseline, b.final or b.baseline
    if first.low_ms <= second.high_ms and second.low_ms <= first.high_ms:
        return "No significant change of latency between A and B (intervals overlap)"
    slow, fast = sorted((first.value_ms, second.value_ms), reverse=True)
    ratio = f"{slow / fast:.2f}x" if fast else "infinitely"
    name, other = ("B", "A") if first.value_ms > second.value_ms else ("A", "B")
    return f"{name} is {ratio} as fast as {other}"
