"""The engine against Torch-Pruning and a global bisection: `python benchmarks/engine.py [net ...]`.

Per net and target (share of the eager model's latency): accuracy before and after the same brief
fine-tuning, the share of the target that is used, seconds of the search. Every variant runs in the
same lowering, is measured by the same interleaved timer and trained by the same loop on the same
data. Needs the benchmark extra. Results are appended to `benchmarks/.trained/engine.jsonl`, and a
row that is there is not run again; the table is printed at the end.
"""

from __future__ import annotations

import argparse
import copy
import json
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from modelspeed.adjusters.plan import task_loss
from modelspeed.adjusters.prune import Pruner
from modelspeed.configs.load import parse_recipe
from modelspeed.configs.recipe import Recipe, make_step
from modelspeed.core.records import Target
from modelspeed.graph.capture import capture, clone
from modelspeed.graph.edits import apply, kept_indices
from modelspeed.graph.groups import keep_units
from modelspeed.profiling.layers import profile_layers
from modelspeed.tuning.bench import Bench, open_bench
from modelspeed.tuning.compensation import compensate
from modelspeed.tuning.finetuning import finetune, reestimate_batch_norm
from modelspeed.tuning.job import Job
from modelspeed.tuning.multiples import rewarded_multiple
from modelspeed.tuning.objective import Kept, Objective
from modelspeed.tuning.search import Search
from modelspeed.tuning.talk import Quiet
from modelspeed.tuning.trainer import Trainer
from torch import nn
from torch.fx import GraphModule

sys.path.insert(0, str(Path(__file__).parent))
import nets

SHARES = (0.5, 0.33, 0.2)
WINDOW = 0.95
MOST = 0.95
EPOCHS = 3.0
RESULTS = nets.TRAINED / "engine.jsonl"
PEERS = {
    f"torch-pruning {scope} {importance}": (scope, importance)
    for scope in ("uniform", "global")
    for importance in ("magnitude", "taylor")
}
OURS = {
    "modelspeed": {},
    "no compensation": {"compensate": False},
    "no Fisher (magnitude)": {"importance": "magnitude"},
    "gate Fisher": {"importance": "fisher"},
    "no distillation": {"distill": False},
}


def bench_of(name: str) -> Bench:
    """The net opened as `tune` opens it, one thread: a quieter machine."""
    data, shape, _ = nets.NETS[name]
    recipe = parse_recipe(
        f"version: 1\ndata: {{factory: '{nets.HERE}/nets.py:{data}'}}\n"
        f"limits: {{minutes: 1000}}\nadjust: [prune: {{max_ratio: {MOST}}}]\n",
        "benchmark", Path.cwd(),
    )  # fmt: skip
    inputs = ({"shape": list(shape), "dtype": "float32"},)
    target = Target(speedup=2.0, batch=shape[0], threads=1)
    factory = "../examples/digits/model.py:build" if name == "resnet" else f"nets.py:{name}"
    args = {"width": 32} if name == "resnet" else {}
    job = Job(str(nets.checkpoint(name)), target, factory, str(nets.HERE), args, inputs)
    bench = open_bench(job, recipe, Quiet())
    bench.measure_reference()
    bench.choose_runtime(bench.original)
    return bench


def trained(
    bench: Bench, module: GraphModule, kept: Kept | None = None, **options: Any
) -> dict[str, float]:
    """Accuracy as it is, with batch norms re-estimated, and after the same fine-tuning.

    `kept` tells which of the original's channels are left; the peers' modules don't say it, so
    they are trained without the comparison of features.
    """
    data = bench.data
    assert data is not None
    normed = clone(module)
    reestimate_batch_norm(normed, data.train, 20, "cpu")
    row = {"raw": bench.accuracy(module), "norms": bench.accuracy(normed)}
    settings = make_step("finetune", epochs=EPOCHS, **options).settings
    if kept is None:
        settings = settings.model_copy(update={"features": 0.0})
    torch.manual_seed(0)
    objective = Objective(module, bench.original, kept or {}, settings)
    held = lambda m: data.held_score(m, "cpu")  # noqa: E731
    finetune(Trainer(objective, data.train, data.held, held, settings, Quiet()))
    return row | {"after": bench.accuracy(module)}  # type: ignore[dict-item]


def bisected(
    bench: Bench, make: Callable[[float], GraphModule], budget: float, most: float
) -> tuple[GraphModule | None, float]:
    """The least level whose measured upper bound is in the window, or the nearest below."""
    low, high = 0.0, most
    best: tuple[GraphModule | None, float] = (None, 0.0)
    for number in range(9):
        level = most if number == 0 else (low + high) / 2
        module = make(level)
        took = bench.latency_on_reference(module)[0].high_ms
        if took <= budget:
            high = level
            if took > best[1]:
                best = (module, took)
        else:
            low = level
            if number == 0:
                break
        if WINDOW * budget < took <= budget:
            break
    return best


def peer(bench: Bench, scope: str, importance: str) -> Callable[[float], GraphModule]:
    """Torch-Pruning at one ratio, captured and ready for the same lowering."""
    import torch_pruning as tp

    score = tp.importance.GroupTaylorImportance() if importance == "taylor" else (
        tp.importance.GroupMagnitudeImportance(p=2))  # fmt: skip
    x = bench.inputs[0]
    data = bench.data
    assert data is not None

    def make(ratio: float) -> GraphModule:
        model = copy.deepcopy(bench.source.module)
        for parameter in model.parameters():
            parameter.requires_grad_(True)
        last = [m for m in model.modules() if isinstance(m, nn.Linear) and m.out_features == 10]
        attentions = [m for m in model.modules() if hasattr(m, "head_dim")]
        pruner = tp.pruner.MetaPruner(
            model, x, importance=score, global_pruning=scope == "global", pruning_ratio=ratio,
            max_pruning_ratio=MOST, ignored_layers=last, round_to=8,
            num_heads={m.qkv: m.num_heads for m in attentions},
        )  # fmt: skip
        if importance == "taylor":
            for inputs, targets in _some(data.train, 8):
                task_loss(model(inputs), targets).backward()
        pruner.step()
        for m in attentions:
            m.head_dim = m.qkv.out_features // (3 * m.num_heads)
        model.zero_grad()
        return _frozen(capture(model.eval(), bench.inputs))

    return make


def global_bisection(bench: Bench) -> Callable[[float], GraphModule]:
    """What this tool did before: units in order of gate Fisher per MAC, over all groups."""
    costs = {c.name: float(c.macs) for c in profile_layers(bench.original, bench.inputs, repeats=1)}
    settings = make_step("prune", importance="fisher", max_ratio=MOST).settings
    context = bench.context(bench.original)
    pruner = Pruner.of(context, settings, costs, rewarded_multiple("cpu"))

    def make(level: float) -> GraphModule:
        edits = keep_units(context.analysis, pruner.at_level(level))
        return apply(clone(bench.original), edits)

    return make


def engine_rows(bench: Bench, options: dict[str, Any], shares: list[float]) -> Iterator[Any]:
    """(share, module, ms used, seconds of the search) by the engine with parts switched off."""
    started = time.monotonic()
    importance = options.get("importance", "compensated")
    step = make_step("prune", max_ratio=MOST, importance=importance)
    recipe: Recipe = bench.recipe.model_copy(update={"adjust": (step,)})
    bench.recipe = recipe
    free, bench.runtime = bench.latency_on_reference(bench.original)
    search = Search.of(bench, step, free)
    shared = time.monotonic() - started
    for share in shares:
        started = time.monotonic()
        found = search.solve(share * bench.reference.value_ms)
        if found is None:
            yield share, None, search.trials[-1].latency.high_ms, shared
            continue
        dropped = search.dropped(found.picks)(bench.original)
        edits = keep_units(search.pruner.analysis, dropped)
        module = apply(clone(bench.original), edits)
        if options.get("compensate", True):
            assert bench.data is not None
            compensate(module, bench.original, bench.data.train, kept_indices(edits))
        yield share, module, found.latency.high_ms, shared + time.monotonic() - started
        shared = 0.0


def _some(batches: Any, count: int) -> Iterator[Any]:
    for number, batch in enumerate(batches):
        if number == count:
            return
        yield batch


def _frozen(module: GraphModule) -> GraphModule:
    for parameter in module.parameters():
        parameter.requires_grad_(False)
    return module


def run(name: str, methods: list[str]) -> None:
    done = {(r["net"], r["method"]) for r in _results()}
    methods = [m for m in methods if (name, m) not in done]
    if not methods:
        return
    bench = bench_of(name)
    whole = bench.reference.value_ms
    base = {"net": name, "eager_ms": whole, "base": bench.accuracy(bench.original)}
    for method in methods:
        if method in OURS:
            rows = engine_rows(bench, OURS[method], list(SHARES))
        else:
            make = (
                global_bisection(bench) if method == "global bisection"
                else peer(bench, *PEERS[method])
            )  # fmt: skip
            most = 1.0 if method == "global bisection" else MOST
            rows = _bisected_rows(bench, make, most)
        for share, module, used, seconds in rows:
            row = base | {"method": method, "share": share, "seconds": round(seconds, 1)}
            row["used"] = used / (share * whole)
            if module is not None:
                row |= trained(bench, module, OURS.get(method, {}).get("distill", True))
            with RESULTS.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
            print(row, file=sys.stderr, flush=True)


def _bisected_rows(
    bench: Bench, make: Callable[[float], GraphModule], most: float
) -> Iterator[Any]:
    for share in SHARES:
        started = time.monotonic()
        try:
            module, used = bisected(bench, make, share * bench.reference.value_ms, most)
        except Exception as error:  # the peer's own failure is a result
            print(f"failed: {error!r}", file=sys.stderr)
            module, used = None, 0.0
        yield share, module, used, time.monotonic() - started


def _results() -> list[dict[str, Any]]:
    if not RESULTS.exists():
        return []
    return [json.loads(line) for line in RESULTS.read_text(encoding="utf-8").splitlines()]


def table() -> str:
    lines = [
        "| net | target | method | before | norms re-estimated | after | of target | search s |",
        "|---|---|---|---|---|---|---|---|",
    ]
    rows = sorted(_results(), key=lambda r: (list(nets.NETS).index(r["net"]), -r["share"]))
    for r in rows:
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
    methods = ["modelspeed", "global bisection", *PEERS]
    if given.ablation:
        methods = list(OURS)
    for name in given.nets:
        run(name, methods)
    print(table())


if __name__ == "__main__":
    main()
