"""Facts of a record in words and rows: the one wording that all renderings share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from ..core.ladder_record import LadderRecord
from ..core.records import Closeness, Latency, Machine, Record
from .pareto import front

DRIFTED = 0.01  # of the original's time: two readings that differ by more are both stated
FRACTIONS = ("accuracy", "top5", "agreement")
VERDICTS = {
    "met": "target met",
    "missed": "target missed",
    "inconclusive": "inconclusive",
    "none": "no target",
}


@dataclass(frozen=True)
class Table:
    title: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def ms(value: float | None) -> str:
    return "–" if value is None else f"{value:.3g} ms" if value < 100 else f"{value:.0f} ms"


def percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.2f} %"


def score(record: Record, value: float | None) -> str:
    """A metric's value: percent where it is a fraction of right answers."""
    fraction = record.quality is None or record.quality.metric in FRACTIONS
    return percent(value) if fraction or value is None else f"{value:.4g}"


def interval(latency: Latency | None) -> str:
    if latency is None:
        return "–"
    return f"{ms(latency.value_ms)} ({latency.low_ms:.3g}–{latency.high_ms:.3g})"


def both_verdicts(record: Record) -> str:
    """On latency, and on accuracy where that is not as good."""
    verdict = VERDICTS[record.verdict]
    if record.limit_broken:
        return f"{verdict}, accuracy limit broken"
    return f"{verdict}, accuracy limit in doubt" if record.limit_in_doubt else verdict


def headline(record: Record) -> str:
    verdict = both_verdicts(record)
    return f"{verdict}: {record.summary}" if record.summary else verdict


def speed(record: Record) -> str:
    speedup = record.speedup
    if speedup is None:
        return "–"
    ends = f"{speedup.low:.2f}–{speedup.high:.2f}"
    if speedup.finding == "no significant change":
        return f"no significant change (ratio {speedup.speedup:.2f}, {ends})"
    return f"{speedup.speedup:.2f}x ({ends}), {speedup.finding}"


def target_ms(record: Record) -> float | None:
    """The target in ms; for a wanted speed-up, by the baseline measured in the same run."""
    if record.target.speedup:
        return record.baseline.value_ms / record.target.speedup
    return record.target.ms


def goal(record: Record) -> str:
    target = target_ms(record)
    if record.target.speedup is None:
        return ms(target)
    return f"{record.target.speedup:g}x as fast as the original ({ms(target)})"


def key_facts(record: Record) -> tuple[tuple[str, str], ...]:
    """The lines a reader wants first, as (name, value)."""
    target = record.target
    what = f"p{target.percentile:g}, batch {target.batch}, {target.device}"
    rows = [("checkpoint", record.source), ("measured as", what)]
    if target_ms(record) is not None:
        rows.append(("target", goal(record)))
    elif target.fastest:
        rows.append(("target", "the fastest within the accuracy limit"))
    rows.append(("original", interval(record.baseline)))
    if record.final is not None:
        rows.append(("result", interval(record.final)))
        rows.extend(_when_quiet(record))
        rows.append(("speed-up", speed(record)))
        rows.extend(_quality(record))
        if record.closeness is not None:
            rows.append(("outputs", closeness(record.closeness)))
        rows.append(("parameters", _change(record.parameters_before, record.parameters_after)))
        rows.append(("MACs", _change(record.macs_before, record.macs_after)))
        rows.append(("runtime", record.runtime_used))
    else:
        rows.append(("parameters", f"{record.parameters_before:,}"))
        if record.macs_before:  # nothing is known of TorchScript, which is only run
            rows.append(("MACs", f"{record.macs_before:,}"))
    rows.extend(("sizes", line) for line in record.sizes)
    if record.smallest_reachable_ms is not None:
        rows.append(("smallest reachable", ms(record.smallest_reachable_ms)))
    if (error := prediction_error(record)) is not None:
        rows.append(("predicted latencies", f"off by {percent(error)} (median of what was tried)"))
    if record.judge:
        rows.append(("judged by", record.judge))
    rows.extend(("what would be accepted", line) for line in record.advice)
    rows.append(("time taken", f"{record.seconds:.0f} s"))
    return tuple(rows)


def _when_quiet(record: Record) -> list[tuple[str, str]]:
    """The verdict's own reading, where the machine was slower when the result was measured."""
    whole, judged = record.reference_ms, record.judged
    if not whole or judged is None or record.baseline.value_ms <= (1 + DRIFTED) * whole:
        return []
    slower = f"{record.baseline.value_ms / whole:.2f}x"
    text = f"original {ms(whole)}, result {interval(judged)}: the verdict goes by the ratio"
    return [("on the quiet machine", f"{text}; it ran {slower} as slow when this was measured")]


def prediction_error(record: Record) -> float | None:
    """Median of |predicted / measured - 1| over the search's candidates, a fraction."""
    pairs = [(c.predicted_ms, c.latency_ms) for c in record.candidates]
    errors = [abs(p / m - 1) for p, m in pairs if p is not None and m > 0]
    return median(errors) if errors else None


def closeness(match: Closeness) -> str:
    batches = ", ".join(map(str, dict.fromkeys(match.batches)))
    return (
        f"within {match.error:.1e} of the plain graph's (at most {match.allowed:g}), "
        f"at batch {batches}, two calls in a row"
    )


def _quality(record: Record) -> list[tuple[str, str]]:
    quality = record.quality
    if quality is None:
        return []
    if not quality.known:
        same = percent(quality.agreement)
        none = "no evaluation data" if record.judge else "no data"
        return [("accuracy", f"unknown ({none}); agreement with the original {same}")]
    change = f"{score(record, quality.baseline)} -> {score(record, quality.final)}"
    drop = f"{100 * (quality.drop or 0.0):.2f} points"
    if quality.metric not in FRACTIONS:
        drop = f"{quality.drop or 0.0:.4g}"
    read = f"{quality.examples:,} examples"
    if quality.examples < quality.total:
        read = f"on {quality.examples:,} of {quality.total:,} examples"
    rows = [(quality.metric, f"{change} (drop {drop}, {read})"), *_certainty(record)]
    if quality.judged is not None:
        judged = (
            f"{score(record, quality.judged.baseline)} -> {score(record, quality.judged.final)}"
        )
        rows.append(("on what judged", f"{judged} ({quality.judged.examples:,} other examples)"))
    return [*rows, ("agreement", percent(quality.agreement))]


def _certainty(record: Record) -> list[tuple[str, str]]:
    """The interval of the drop, and how much of it may be chance."""
    quality, limit = record.quality, record.max_drop
    if quality is None or quality.drop_low is None or quality.drop_high is None:
        return []
    scale, unit = (100.0, " points") if quality.metric in FRACTIONS else (1.0, "")
    ends = f"{scale * quality.drop_low:.3g} to {scale * quality.drop_high:.3g}{unit}"
    said = ": the drop is within chance" if quality.is_chance else ""
    if record.limit_in_doubt and limit is not None:
        said += f"; above the limit of {scale * limit:.3g}{unit} by no more than chance"
    return [("95 % interval of the drop", f"{ends}{said}")]


def _change(before: int, after: int) -> str:
    return f"{before:,} -> {after:,}" if before != after else f"{before:,}, unchanged"


def steps(record: Record) -> Table:
    rows = tuple(
        (
            s.adjuster,
            s.status,
            s.reason,
            f"{ms(s.latency_before)} -> {ms(s.latency_after)}" if s.latency_after else "–",
            f"{score(record, s.accuracy_before)} -> {score(record, s.accuracy_after)}"
            if s.accuracy_after is not None
            else "–",
            f"{s.seconds:.1f} s",
        )
        for s in record.steps
    )
    return Table("What was done", ("step", "status", "why", "latency", "accuracy", "took"), rows)


def left_alone(record: Record) -> Table:
    rows = tuple((item.what, item.reason) for item in record.left_alone)
    return Table("What was left alone", ("what", "why"), rows)


def groups(record: Record) -> Table:
    rows = tuple((g.name, str(g.size), ", ".join(g.members), g.frozen or "") for g in record.groups)
    return Table("Channel groups", ("group", "units", "members", "why it stays whole"), rows)


def runtimes(record: Record) -> Table:
    rows = tuple(
        (r.name, f"{ms(r.ms)} ({r.low_ms:.3g}–{r.high_ms:.3g})", f"{r.ready_seconds:.2f} s",
         "yes" if r.chosen else "")
        for r in record.runtimes
    )  # fmt: skip
    return Table("Runtimes side by side", ("runtime", "latency", "getting ready", "in use"), rows)


def pareto(record: Record) -> Table:
    rows = tuple(
        (c.label, ms(c.latency_ms), score(record, c.accuracy)) for c in front(record.candidates)
    )
    head = ("candidate", "latency", "accuracy as judged, not fine-tuned")
    return Table("Best of what was tried", head, rows if len(rows) > 1 else ())


def warnings(record: Record) -> Table:
    rows = tuple((n.code, n.seen, n.cause, n.remedy) for n in record.notices)
    return Table("Warnings", ("warning", "seen", "likely cause", "what helps"), rows)


def layer_table(record: Record, most: int = 12) -> Table:
    ranked = sorted(record.layers_before, key=lambda c: -c.ms)[:most]
    rows = tuple(
        (c.name, c.op, ms(c.ms), percent(c.share), f"{c.macs:,}", f"{c.bytes:,}",
         percent(c.peak_fraction))
        for c in ranked
    )  # fmt: skip
    head = ("layer", "operator", "time", "share", "MACs", "bytes", "of peak")
    return Table("Slowest layers of the original", head, rows)


def time_spent(record: Record) -> Table:
    rows = tuple(
        (t.what, f"{t.seconds:.1f} s", percent(t.seconds / (record.seconds or 1.0)),
         "" if t.planned is None else f"{t.planned:.0f} s")
        for t in record.time_spent
    )  # fmt: skip
    return Table("Where the time went", ("what", "took", "share", "planned"), rows)


def machine(record: Record) -> str:
    return machine_text(record.machine)


def machine_text(m: Machine) -> str:
    return (
        f"{m.cpu} ({m.isa}), {m.threads} of {m.cores} cores, {m.device}, torch {m.torch}, "
        f"Python {m.python}, {m.system}; fingerprint {m.fingerprint}"
    )


def foot(record: Record | LadderRecord) -> tuple[str, str]:
    """Lines at the end of a report."""
    return (
        f"Measured on {machine_text(record.machine)}.",
        f"modelspeed {record.version}, {record.created}",
    )


def tables(record: Record) -> Sequence[Table]:
    """All tables that have rows, in reading order."""
    every = (
        steps(record), runtimes(record), pareto(record), groups(record), left_alone(record),
        warnings(record), layer_table(record), time_spent(record),
    )  # fmt: skip
    return [t for t in every if t.rows]
