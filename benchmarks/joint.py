"""Each lever alone against all of them in one search: `python benchmarks/joint.py [net ...]`.

Nets, data, lowering and fine-tuning are those of `engine.py`. Per share of the eager latency:
accuracy before any gradient step (after compensation, in the formats that were taken) and after the
same brief fine-tuning in float32, the formats applied behind it. A lever alone is `prune` with
`drop_blocks`, `precision`, or `quantize` of all layers; a format alone has nothing to train, since
it removes nothing. Rows go to `benchmarks/.trained/joint.jsonl`; what is there is not run again.
"""

from __future__ import annotations

import argparse
import time
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import engine
import nets
import torch
from modelspeed.configs.recipe import make_step
from modelspeed.core.progress import Silent
from modelspeed.graph.capture import clone
from modelspeed.profiling.gate import working
from modelspeed.search.search import Search
from modelspeed.search.trials import Trial
from modelspeed.training.distillation import DistillationLoss
from modelspeed.training.finetuning import finetune
from modelspeed.training.trainer import Trainer
from modelspeed.tuning.candidates import build, plan_step
from modelspeed.tuning.delivery import baseline_record
from modelspeed.tuning.lab import SessionLab
from modelspeed.tuning.session import Session
from result_rows import keep_row, rows_of

SHARES = (0.33, 0.2, 0.12)
LEVERS: dict[str, tuple[str, ...]] = {
    "widths and blocks": (),
    "bfloat16": ("precision",),
    "int8": ("quantize",),
    "together": ("precision", "quantize"),
}
RESULTS = nets.TRAINED / "joint.jsonl"


def opened(session: Session, name: str, formats: tuple[str, ...]) -> Search:
    through = name in engine.THROUGH_NORMS
    prune = make_step("prune", max_ratio=engine.MOST, through_norms=through)
    steps = [make_step("drop_blocks"), prune, make_step("compensate")]
    for form in formats:
        steps.append(make_step(form))
    recipe = session.recipe.model_copy(update={"adjust": tuple(steps)})
    session = replace(session, recipe=recipe, started=working())  # the time of a run of its own
    free, runtime = session.relative_latency(session.original)
    record = baseline_record(session, "tune", session.reference)
    return Search.of(SessionLab(session, record, Path("unused"), runtime), prune, free)


def answer(search: Search, lever: str, budget: float) -> Trial | None:
    """What a lever has to offer at a budget, None where it can't reach it."""
    if lever in ("together", "widths and blocks"):
        return search.solve(budget)
    halves = (search.measure(search.problem.whole(), form) for form in search.number_formats[1:])
    integers = (search.measure(search.space.all_by(step).whole()) for step in search.steps)
    return next((t for t in (*halves, *integers) if t.latency.high_ms <= budget), None)


def trained(session: Session, search: Search, trial: Trial, epochs: float) -> dict[str, float]:
    chosen = search.decision(trial)
    row = {"raw": nets.accuracy(session, build(session, chosen, recover=True).module)}
    if chosen.removes_nothing:
        return row | {"after": row["raw"]}  # type: ignore[return-value]
    narrow = build(session, replace(chosen, taken=()), recover=True)
    settings = make_step("finetune", epochs=epochs).settings
    data = session.data
    assert data is not None
    torch.manual_seed(0)
    objective = DistillationLoss(narrow.module, session.original, settings)
    held_out = lambda m: data.held_out_score(m, "cpu")  # noqa: E731
    finetune(Trainer(objective, data.train, data.held_out, held_out, settings, Silent()))
    for step in session.recipe.adjust:
        if not chosen.takes(step):
            continue
        plan = plan_step(session, narrow, step, chosen)
        narrow.module = plan.apply(clone(narrow.module))
    return row | {"after": nets.accuracy(session, narrow.module)}  # type: ignore[return-value]


def run(name: str) -> None:
    done = {(r["net"], r["lever"], r["share"]) for r in rows_of(RESULTS)}
    wanted = {lever: [s for s in SHARES if (name, lever, s) not in done] for lever in LEVERS}
    if not any(wanted.values()):
        return
    session = engine.session_of(name)
    base, whole = nets.accuracy(session, session.original), session.reference.value_ms
    for lever, shares in wanted.items():
        search = opened(session, name, LEVERS[lever]) if shares else None
        for share in shares:
            assert search is not None
            started = time.monotonic()
            # Each search has the time of a run of its own.
            lab = cast(SessionLab, search.lab)
            search.lab = replace(lab, session=replace(lab.session, started=working()))
            trial = answer(search, lever, share * whole)
            row: dict[str, Any] = {"net": name, "lever": lever, "share": share, "base": base}
            row["seconds"] = round(time.monotonic() - started, 1)
            if trial is not None:
                row |= trained(session, search, trial, engine.EPOCHS[name])
                row |= {"used": trial.latency.high_ms / (share * whole)}
                removes = not search.decision(trial).removes_nothing
                row |= {"form": trial.name, "removes": removes}
            keep_row(RESULTS, row)


def table() -> str:
    lines = ["| net | target | lever | answer | before | after | of target |", "|" + "---|" * 7]
    order = list(nets.NETS)
    for r in sorted(rows_of(RESULTS), key=lambda r: (order.index(r["net"]), -r["share"])):
        cells = ["–", "–", "–", "out of reach"]
        if "raw" in r:
            form = r["form"] + (", narrower" if r["removes"] else "")
            cells = [
                form,
                *(f"{100 * r[k]:.1f}" for k in ("raw", "after")),
                f"{100 * r['used']:.1f} %",
            ]
        lines.append(
            f"| {r['net']} ({100 * r['base']:.1f}) | {100 * r['share']:.0f} % | {r['lever']} | "
            f"{' | '.join(cells)} |"
        )
    return "\n".join(lines)


def main() -> None:
    warnings.simplefilter("ignore")
    parser = argparse.ArgumentParser()
    parser.add_argument("nets", nargs="*", default=list(nets.NETS))
    for name in parser.parse_args().nets:
        run(name)
    print(table())


if __name__ == "__main__":
    main()
