"""Tables for `benchmarks/RESULTS.md` out of the lines of a GPU run: Markdown on stdout.

    python benchmarks/gpu/collect.py LINES.jsonl [MORE.jsonl ...]

Of several lines of one cell the last counts. Standard library only.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from lines import read

Row = dict[str, Any]
NAMES = {"resnet50": "ResNet-50", "vit": "ViT-B/16", "bert": "BERT-base"}


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Empty without rows."""
    cells = list(rows)
    lines = [head, ["---"] * len(head), *cells] if cells else []
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def number(value: object, form: str = ".2f", unit: str = "") -> str:
    return f"{value:{form}}{unit}" if isinstance(value, int | float) else "–"


def percent(value: object) -> str:
    return f"{100 * value:.1f} %" if isinstance(value, int | float) else "–"


def ratio(row: Row) -> str:
    if row.get("speedup") is None:
        return "–"
    return f"{row['speedup']:.2f}x ({number(row.get('low'))}–{number(row.get('high'))})"


def latest(rows: list[Row], kind: str, *keys: str) -> list[Row]:
    found = {tuple(row.get(k) for k in keys): row for row in rows if row["kind"] == kind}
    return list(found.values())


def machine(rows: list[Row]) -> str:
    made = [r["machine"] for r in rows if isinstance(r.get("machine"), dict)]
    if not made:
        return "Machine: unknown (no step told it)."
    m = made[-1]
    text = f"Machine: {m.get('device')}, {m.get('cpu')}, {m.get('cores')} cores"
    return f"{text}, torch {m.get('torch')}, Python {m.get('python')}."


def steps(rows: list[Row]) -> str:
    cells = [
        (r["name"], number(r["seconds"], ".0f"), r["limit"],
         "stopped" if r["late"] else "ended" if not r["rc"] else f"failed ({r['rc']})")
        for r in latest(rows, "step", "name")
    ]  # fmt: skip
    return table(("step", "s", "limit", "how"), cells)


def same_with_itself(rows: list[Row]) -> str:
    cells = [
        (r["repeats"], r["no_significant_change"], r["no_significant_change_stopped_early"],
         f"{r['speedup_range'][0]:.4f}–{r['speedup_range'][1]:.4f}",
         f"{r['measured_p50_ms']:.4f} / {r['torch_benchmark_one_call_ms']:.4f} ms")
        for r in latest(rows, "aa", "device")
    ]  # fmt: skip
    head = ("comparisons", "no significant change", "the same, stopped early", "ratio",
            "p50 / torch.utils.benchmark")  # fmt: skip
    return table(head, cells)


def commands(rows: list[Row]) -> str:
    cells = [
        (r["name"], r.get("verdict") or "–", number(r.get("eager_ms"), ".3f"),
         number(r.get("ms"), ".3f"), ratio(r), percent(r.get("metric_before")),
         percent(r.get("metric_after")), r.get("runtime") or "–", number(r.get("seconds"), ".0f"))
        for r in latest(rows, "command", "name") if "verdict" in r and r["command"] == "tune"
    ]  # fmt: skip
    head = ("run", "verdict", "eager ms", "ms", "over eager", "accuracy before", "after", "runtime",
            "s")  # fmt: skip
    return table(head, cells)


def runtimes(rows: list[Row]) -> str:
    cells = [
        (r["name"], run["name"], number(run["ms"], ".4f"), number(run["ready_seconds"], ".1f"),
         number(run.get("error"), ".1e"))
        for r in latest(rows, "command", "name") if r["command"] == "profile"
        for run in r.get("runtimes", [])
    ]  # fmt: skip
    return table(("net", "runtime", "ms", "ready in s", "error"), cells)


def engines(rows: list[Row]) -> str:
    parts = []
    found = latest(rows, "engine", "net", "batch", "engine")
    for net, batch in dict.fromkeys((r["net"], r["batch"]) for r in found):
        mine = [r for r in found if (r["net"], r["batch"]) == (net, batch)]
        cells = [
            (r["engine"], number(r["ms"], ".3f"), ratio(r), percent(r["accuracy"]),
             number(r["error"], ".1e"), number(r["ready_s"], ".1f"), r.get("mib", "–"),
             number(r.get("sm_mhz"), ".0f"), ", ".join(r["notices"]) or "–")
            for r in mine if "ms" in r
        ]  # fmt: skip
        head = ("engine", "p50 ms", "over eager", "accuracy", "error", "ready in s", "MiB",
                "SM MHz", "notices")  # fmt: skip
        missing = [f"- left out: {r['engine']} ({r['missing']})" for r in mine if "missing" in r]
        title = f"{NAMES.get(net, net)}, batch {batch}"
        parts.append("\n".join([title, "", table(head, cells), *missing]))
    return "\n\n".join(parts)


def pruning(rows: list[Row]) -> str:
    cells = [
        (f"{NAMES.get(r['net'], r['net'])}, batch {r['batch']} ({percent(r['base'])})", r["method"],
         percent(r["share"]), percent(r.get("used")), percent(r.get("before")),
         percent(r.get("after")), r.get("missing") or r.get("reason") or number(r.get("seconds")))
        for r in latest(rows, "pruning", "net", "batch", "method")
    ]  # fmt: skip
    head = ("net", "method", "target (of eager)", "of target", "before", "after", "search s")
    return table(head, cells)


def nets(rows: list[Row]) -> str:
    cells = [
        (NAMES.get(r["net"], r["net"]), f"{r['parameters']:,}", r["steps"], percent(r["accuracy"]))
        for r in latest(rows, "net", "net")
    ]
    return table(("net", "parameters", "steps of 64", "accuracy"), cells)


PARTS = {
    "Steps": ("step", steps),
    "A model against itself": ("aa", same_with_itself),
    "Nets, trained for seconds": ("net", nets),
    "Tuned": ("command", commands),
    "Runtimes of the digits ResNet": ("command", runtimes),
    "Engines": ("engine", engines),
    "Beside Torch-Pruning": ("pruning", pruning),
}


def tables(rows: list[Row]) -> str:
    rows = [row for row in rows if "kind" in row]
    parts = [machine(rows)]
    for title, (kind, made) in PARTS.items():
        if any(row["kind"] == kind for row in rows) and (text := made(rows)):
            parts.append(f"### {title}\n\n{text}")
    return "\n\n".join(parts)


def main() -> None:
    print(tables([row for path in sys.argv[1:] for row in read(Path(path))]))


if __name__ == "__main__":
    main()
