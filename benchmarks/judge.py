"""The data that decides, compared: `python benchmarks/judge.py [net ...]`, plain digits by default.

Per net and target (share of the eager model's latency), for `data.judge: train` and the default:
accuracy after the same brief fine-tuning, in how many of the seeds training was kept, and the
optimism: the figure on the data that judged less the one on the half that reports, of the accuracy
and of its drop. Both ways report on the same half, which neither reads before. Nets, search and
training are those of `engine.py`; `digits` is the demo's net on the demo's data.

Rows are appended to `benchmarks/.trained/judge.jsonl`, and what is there is not run again.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Iterator
from statistics import mean
from typing import Any

import engine
import nets
import torch
from modelspeed.configs.recipe import make_step
from modelspeed.core.model_io import Batches
from modelspeed.core.progress import Silent
from modelspeed.graph.capture import clone
from modelspeed.profiling.accuracy import evaluate
from modelspeed.training.distillation import DistillationLoss
from modelspeed.training.finetuning import finetune
from modelspeed.training.trainer import Trainer
from modelspeed.tuning.session import Session
from result_rows import keep_row, rows_of
from torch.fx import GraphModule

WAYS = ("train", "auto")
EPOCHS = {"digits": 3.0, **engine.EPOCHS}
RESULTS = nets.TRAINED / "judge.jsonl"
CELL = ("net", "judge", "share", "seed")


def trained(session: Session, module: GraphModule, epochs: float, seed: int) -> Any:
    """A copy after the same fine-tuning, and what was kept of it."""
    data, student = session.data, clone(module)
    assert data is not None
    settings = make_step("finetune", epochs=epochs).settings
    torch.manual_seed(seed)
    done = finetune(
        Trainer(
            DistillationLoss(student, session.original, settings), data.train, data.held_out,
            lambda m: data.rank(m, session.original, "cpu"), settings, Silent(),
        )
    )  # fmt: skip
    return student, done.kept


def rows(
    name: str, judge: str, shares: tuple[float, ...], seeds: int, reported: Batches
) -> Iterator[dict[str, Any]]:
    with engine.alone():
        session = engine.session_of(name, judge)
        options = {"through_norms": name in engine.THROUGH_NORMS}
        variants = list(engine.engine_rows(session, options, shares))
    data = session.data
    assert data is not None

    def figures(module: GraphModule) -> tuple[float, float]:
        report = evaluate(module, reported, data.metric, "cpu")[0]
        return data.held_out_score(module, "cpu"), report

    start = figures(session.original)
    for share, module, _, _ in variants:
        for seed in range(seeds if module is not None else 0):
            student, kept = trained(session, module, EPOCHS[name], seed)
            judged, report = figures(student)
            yield {
                "net": name, "judge": judge, "share": share, "seed": seed, "kept": kept,
                "original": start[1], "after": report, "judged": judged,
                "optimism": judged - report,
                "of_drop": (start[1] - report) - (start[0] - judged),
            }  # fmt: skip


def run(name: str, shares: tuple[float, ...], seeds: int) -> None:
    done = {(r["net"], r["judge"], r["share"], r["seed"]) for r in rows_of(RESULTS)}
    wanted = {(share, seed) for share in shares for seed in range(seeds)}
    halves = engine.session_of(name).data
    assert halves is not None and halves.halves is not None
    for judge in WAYS:
        if all((name, judge, share, seed) in done for share, seed in wanted):
            continue
        for row in rows(name, judge, shares, seeds, halves.reported):
            keep_row(RESULTS, row)


def table(names: list[str]) -> str:
    lines = [
        "| net | target | judged by | after | training kept | judged - reported | of the drop |",
        "|---|---|---|---|---|---|---|",
    ]
    results = [r for r in rows_of(RESULTS, *CELL) if r["net"] in names]
    keys = dict.fromkeys((r["net"], r["share"], r["judge"]) for r in results)
    for name, share, judge in sorted(keys, key=lambda k: (names.index(k[0]), -k[1], k[2])):
        same = [r for r in results if (r["net"], r["share"], r["judge"]) == (name, share, judge)]
        after, optimism, drop = (
            100 * mean(r[key] for r in same) for key in ("after", "optimism", "of_drop")
        )
        kept = sum(r["kept"] == "trained" for r in same)
        by = "train" if judge == "train" else "half"
        lines.append(
            f"| {name} ({100 * same[0]['original']:.1f}) | {100 * share:.0f} % | {by} | "
            f"{after:.1f} | {kept} of {len(same)} | {optimism:+.1f} | {drop:+.1f} |"
        )
    return "\n".join(lines)


def main() -> None:
    warnings.simplefilter("ignore")
    parser = argparse.ArgumentParser()
    parser.add_argument("nets", nargs="*", default=["digits"])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--shares", type=float, nargs="+", default=[0.33])
    given = parser.parse_args()
    nets.TRAINED.mkdir(exist_ok=True)
    for name in given.nets:
        run(name, tuple(given.shares), given.seeds)
    print(table(given.nets))


if __name__ == "__main__":
    main()
