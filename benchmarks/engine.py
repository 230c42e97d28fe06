"""The engine against Torch-Pruning and a global bisection: `python benchmarks/engine.py [net ...]`.

Per net and target (share of the eager model's latency): accuracy before and after the same brief
fine-tuning, the share of the target that is used, seconds of the search. Every variant runs in the
same lowering, is measured by the same interleaved timer and trained by the same loop on the same
data for as many steps. `--ablation` switches the engine's parts off in turn. Needs the benchmark
extra.

Rows are appended to `benchmarks/.trained/engine.jsonl`, and what is there is not run again; the
table is printed at the end. Two processes may run at once, each with nets of its own: only one of
them measures at a time; the other may train on the other core meanwhile, and since every latency is
taken in turns with the original's, that hits both alike.
"""

from __future__ import annotations

import argparse
import fcntl
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from modelspeed.configs.load import parse_recipe
from modelspeed.configs.recipe import make_step
from modelspeed.core.progress import Silent
from modelspeed.core.records import Target
from modelspeed.graph.capture import clone
from modelspeed.search import trials
from modelspeed.search.knapsack import Problem
from modelspeed.search.latency_tables import LatencyTables
from modelspeed.search.search import Search
from modelspeed.training.distillation import DistillationLoss
from modelspeed.training.finetuning import finetune, reestimate_batch_norm
from modelspeed.training.trainer import Trainer
from modelspeed.tuning.candidates import build
from modelspeed.tuning.delivery import baseline_record
from modelspeed.tuning.job import Job
from modelspeed.tuning.lab import SessionLab
from modelspeed.tuning.session import Session, open_session
from torch.fx import GraphModule

sys.path.insert(0, str(Path(__file__).parent))
import nets
import peers
from result_rows import keep_row, rows_of

SHARES = (0.5, 0.33, 0.2)
ABLATED = (0.33,)
MOST = 0.95
# What "brief" means here: of 150 batches of 64 each, and of 19 for the ViT.
EPOCHS = {"resnet": 0.5, "mobile": 0.5, "vit": 3.0, "sound": 1.0}
DEMO = nets.HERE.parent / "examples" / "digits"
RESULTS = nets.TRAINED / "engine.jsonl"
CELL = ("net", "method", "share")
# The residual width of transformers goes through layer norms; Torch-Pruning prunes it too.
THROUGH_NORMS = {"vit"}
PEERS = ("global bisection", *peers.SETTINGS)
OURS: dict[str, dict[str, Any]] = {
    "modelspeed": {},
    "no cost tables (MACs)": {"macs": True},
    "no compensation": {"compensate": False},
    "no Fisher (magnitude)": {"importance": "magnitude", "blocks": False},
    "gate Fisher": {"importance": "fisher"},
    "no blocks": {"blocks": False},
    "one allocation": {"variants": False},
    "no distillation": {"train": {"distill": False}},
}


@contextmanager
def alone() -> Iterator[None]:
    with (nets.TRAINED / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def session_of(name: str, judge: str = "auto") -> Session:
    """The net opened as `tune` opens it, one thread: a quieter machine. `judge`: as `data.judge`
    says it; `digits`: the demo's net and data."""
    data, shape, _ = ("digits", (1, 1, 32, 32), 0) if name == "digits" else nets.NETS[name]
    is_resnet = name in ("digits", "resnet")
    checkpoint = DEMO / "digits_resnet.pt" if name == "digits" else nets.checkpoint(name)
    recipe = parse_recipe(
        f"version: 1\ndata: {{factory: '{nets.HERE}/nets.py:{data}', judge: {judge}}}\n"
        f"limits: {{minutes: 1000}}\nadjust: [prune: {{max_ratio: {MOST}}}]\n",
        "benchmark", Path.cwd(),
    )  # fmt: skip
    inputs = ({"shape": list(shape), "dtype": "float32"},)
    target = Target(speedup=2.0, batch=shape[0], threads=1)
    factory = "../examples/digits/model.py:build" if is_resnet else f"nets.py:{name}"
    args = {"width": 32} if is_resnet else {}
    job = Job(str(checkpoint), target, factory, str(nets.HERE), args, inputs)
    session = open_session(job, recipe, Silent()).with_baseline()
    return session.with_kernels(session.original)


def trained(
    session: Session, module: GraphModule, epochs: float, **options: Any
) -> dict[str, float]:
    """Accuracy as it is, with batch norms re-estimated, and after the same fine-tuning."""
    data = session.data
    assert data is not None
    normed = clone(module)
    reestimate_batch_norm(normed, data.train, 20, "cpu")
    row = {"raw": nets.accuracy(session, module), "norms": nets.accuracy(session, normed)}
    settings = make_step("finetune", epochs=epochs, **options).settings
    torch.manual_seed(0)
    objective = DistillationLoss(module, session.original, settings)
    held_out = lambda m: data.held_out_score(m, "cpu")  # noqa: E731
    finetune(Trainer(objective, data.train, data.held_out, held_out, settings, Silent()))
    return row | {"after": nets.accuracy(session, module)}  # type: ignore[dict-item]


def engine_rows(
    session: Session, options: dict[str, Any], shares: tuple[float, ...]
) -> Iterator[Any]:
    """(share, module, ms used, seconds) by the engine with parts switched off."""
    started = time.monotonic()
    prune = make_step(
        "prune", max_ratio=MOST, importance=options.get("importance", "compensated"),
        through_norms=options["through_norms"],
    )  # fmt: skip
    steps = [prune]
    if options.get("blocks", True):
        steps.insert(0, make_step("drop_blocks"))
    if options.get("compensate", True):
        steps.append(make_step("compensate"))
    session = replace(session, recipe=session.recipe.model_copy(update={"adjust": tuple(steps)}))
    free, runtime = session.relative_latency(session.original)
    record = baseline_record(session, "tune", session.reference)
    search = Search.of(SessionLab(session, record, Path("unused"), runtime), prune, free)
    shared = time.monotonic() - started
    for share in shares:
        started = time.monotonic()
        trial = search.solve(share * session.reference.value_ms)
        seconds = shared + time.monotonic() - started
        shared = 0.0
        if trial is None:
            yield share, None, min(t.latency.high_ms for t in search.trials), seconds
            continue
        variant = build(session, search.decision(trial), recover=True)
        yield share, variant.module, trial.latency.high_ms, seconds


@contextmanager
def switched_off(options: dict[str, Any]) -> Iterator[None]:
    """Parts that no setting reaches."""
    usual: list[tuple[Any, str, Any]] = []

    def put(owner: Any, name: str, value: Any) -> None:
        usual.append((owner, name, getattr(owner, name)))
        setattr(owner, name, value)

    if options.get("macs"):
        put(LatencyTables, "at", _macs)
    if not options.get("variants", True):
        put(Problem, "variants", lambda self: [])
        put(trials, "SHORTLIST", 1)
    try:
        yield
    finally:
        for owner, name, value in usual:
            setattr(owner, name, value)


def _macs(self: LatencyTables, shape: Any, ins: int, outs: int) -> float:
    """Multiply-accumulates in place of ms; what one more ms is worth is found by measuring."""
    positions = 1
    for k in (*shape.kernel, *shape.spatial_size, *shape.batch):
        positions *= k
    return 1e-8 * positions * outs * (1 if shape.depthwise else ins)


def run(name: str, methods: list[str], shares: tuple[float, ...]) -> None:
    done = {(r["net"], r["method"], r["share"]) for r in rows_of(RESULTS)}
    methods = [m for m in methods if any((name, m, s) not in done for s in shares)]
    if not methods:
        return
    with alone():
        session = session_of(name)
    whole = session.reference.value_ms
    base = {"net": name, "eager_ms": whole, "base": nets.accuracy(session, session.original)}
    for method in methods:
        options = {"through_norms": name in THROUGH_NORMS, **OURS.get(method, {})}
        with alone(), switched_off(options):
            variants = list(
                engine_rows(session, options, shares) if method in OURS
                else peers.rows(session, method, shares, time.monotonic)
            )  # fmt: skip
        for share, module, used, seconds in variants:
            row = base | {"method": method, "share": share, "seconds": round(seconds, 1)}
            row["used"] = used / (share * whole)
            if module is not None:
                row |= trained(session, module, EPOCHS[name], **options.get("train", {}))
            keep_row(RESULTS, row)


def table(wanted: Callable[[dict[str, Any]], bool]) -> str:
    lines = [
        "| net | target | method | before | norms re-estimated | after | of target | search s |",
        "|---|---|---|---|---|---|---|---|",
    ]
    results = [r for r in rows_of(RESULTS, *CELL) if wanted(r)]
    for r in sorted(results, key=lambda r: (list(nets.NETS).index(r["net"]), -r["share"])):
        accuracies = [f"{100 * r[k]:.1f}" if k in r else "–" for k in ("raw", "norms", "after")]
        used = f"{100 * r['used']:.1f} %" if "raw" in r else "out of reach"
        lines.append(
            f"| {r['net']} ({100 * r['base']:.1f}) | {100 * r['share']:.0f} % | {r['method']} | "
            f"{' | '.join(accuracies)} | {used} | {r['seconds']:.0f} |"
        )
    return "\n".join(lines)


def main() -> None:
    warnings.simplefilter("ignore")
    parser = argparse.ArgumentParser()
    parser.add_argument("nets", nargs="*", default=list(nets.NETS))
    parser.add_argument("--ablation", action="store_true")
    given = parser.parse_args()
    methods = list(OURS) if given.ablation else ["modelspeed", *PEERS]
    for name in given.nets:
        run(name, methods, ABLATED if given.ablation else SHARES)
    print(table(lambda r: r["method"] in methods and (not given.ablation or r["share"] in ABLATED)))


if __name__ == "__main__":
    main()
