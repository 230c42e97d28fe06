"""Facts of a ladder in words and rows, for all of its renderings."""

from __future__ import annotations

from collections.abc import Sequence

from ..core.ladder_record import MAX_MEMORY_RATIO, LadderRecord, Rung
from . import facts

MB = 1e6


def ladder_headline(record: LadderRecord) -> str:
    rungs = record.rungs
    count = f"{len(rungs)} rung{'s' if len(rungs) != 1 else ''}"
    if len(rungs) == 1:
        return f"{count}: the original as it is"
    first, last = (_median(record, rung) for rung in (rungs[0], rungs[-1]))
    scores = f"{_worth(record, 0)} to {_worth(record, len(rungs) - 1)} {record.score_name}"
    return f"{count}: {facts.ms(first)} to {facts.ms(last)}, {scores}"


def ladder_key_facts(record: LadderRecord) -> tuple[tuple[str, str], ...]:
    rows = [("checkpoint", record.source or "–"), ("measured as", f"median, batch {record.batch}")]
    if record.memory_bytes is not None:
        rows.append(("memory of all rungs", _memory(record)))
    if warning := memory_warning(record):
        rows.append(("warning", warning))
    for cascade in record.cascades:
        names = record.rungs[cascade.low].name, record.rungs[cascade.high].name
        text = (
            f"`{names[0]}` answers, {facts.percent(cascade.share)} go up to `{names[1]}`: accuracy "
            f"{facts.percent(cascade.accuracy)} on {cascade.examples:,} held-out examples"
        )
        rows.append(("cascade", text))
    if record.seconds:
        rows.append(("time taken", f"{record.seconds:.0f} s"))
    return tuple(rows)


def memory_warning(record: LadderRecord) -> str:
    """The sentence for a ladder that takes too much memory, with what helps; empty otherwise."""
    ratio = record.memory_ratio
    if ratio is None or ratio <= MAX_MEMORY_RATIO:
        return ""
    largest = max(record.rungs[1:], key=lambda rung: rung.memory_bytes, default=record.rungs[0])
    return (
        f"all rungs loaded take {ratio:.2f} times the original's memory, more than "
        f"{MAX_MEMORY_RATIO:g} times; below the top `{largest.name}` takes the most, "
        f"{largest.memory_bytes / MB:.1f} MB. Fewer rungs (`--rungs`, or fewer targets) "
        "take less, and so does `--runtime plain` where rungs run on packed weights: it is "
        "slower and keeps one copy of them"
    )


def ladder_tables(record: LadderRecord) -> Sequence[facts.Table]:
    """All tables that have rows, in reading order."""
    left_out = facts.Table(
        "What is left out", ("what", "why"), tuple((r.what, r.reason) for r in record.left_out)
    )
    every = (_staircase(record), _batches(record), left_out)
    return [table for table in every if table.rows]


def _staircase(record: LadderRecord) -> facts.Table:
    head = ("rung", record.score_name, "agreement", "p50", "p95", "p99", "speed-up", "memory",
            "target")  # fmt: skip
    rows = []
    for place, rung in enumerate(record.rungs):
        at = rung.at(record.batch)
        rows.append((
            rung.name, _worth(record, place), facts.percent(rung.agreement),
            *map(facts.ms, (at.p50_ms, at.p95_ms, at.p99_ms)),
            "–" if rung.speedup is None else f"{rung.speedup:.2f}x",
            f"{rung.memory_bytes / MB:.1f} MB", _goal(rung),
        ))  # fmt: skip
    return facts.Table(f"Rungs, at batch {record.batch}", head, tuple(rows))


def _batches(record: LadderRecord) -> facts.Table:
    sizes = sorted({row.batch for rung in record.rungs for row in rung.latencies})
    rows = []
    for rung in record.rungs:
        cells = {row.batch: row for row in rung.latencies}
        found = [cells.get(size) for size in sizes]
        rows.append((rung.name, *("–" if c is None else facts.ms(c.p50_ms) for c in found)))
    head = ("rung", *(f"batch {size}" for size in sizes))
    return facts.Table("Median latency by batch size", head, tuple(rows))


def _goal(rung: Rung) -> str:
    target = rung.target
    if target is None or (target.ms is None and target.speedup is None):
        return "–"
    goal = facts.ms(target.ms) if target.speedup is None else f"{target.speedup:g}x"
    return f"{goal}, {facts.VERDICTS[rung.verdict].removeprefix('target ')}"


def _memory(record: LadderRecord) -> str:
    assert record.memory_bytes is not None
    text = f"{record.memory_bytes / MB:.1f} MB"
    if record.memory_ratio is None or record.original_memory_bytes is None:
        return text
    return (
        f"{text}, {record.memory_ratio:.2f} times the original's "
        f"({record.original_memory_bytes / MB:.1f} MB)"
    )


def _median(record: LadderRecord, rung: Rung) -> float:
    return rung.at(record.batch).p50_ms


def _worth(record: LadderRecord, place: int) -> str:
    value = record.scores[place]
    return facts.percent(value) if record.score_name in facts.FRACTIONS else f"{value:.4g}"
