"""What `benchmarks/engine.py` compares with: Torch-Pruning, and this tool's former bisection.

Each is a function from a level (0 to 1) to a captured graph, searched by `bisected`.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

from modelspeed.adjusters.prune import Pruner
from modelspeed.configs.recipe import make_step
from modelspeed.graph.analysis.groups import keep_units
from modelspeed.graph.capture import capture, clone
from modelspeed.graph.edits.apply import apply
from modelspeed.profiling.layers import profile_layers
from modelspeed.profiling.losses import task_loss
from modelspeed.search.width_multiple import rewarded_multiple
from modelspeed.tuning.session import Session
from torch import nn
from torch.fx import GraphModule

WINDOW = 0.95
MOST = 0.95
TRIALS = 9
# Above some ratio Torch-Pruning's `round_to` undoes the pruning, so the most it can do is tried.
LEVELS = (0.6, 0.7, 0.8, 0.85, 0.9, 0.95)
Make = Callable[[float], GraphModule]
SETTINGS = {
    f"torch-pruning {scope} {importance}": (scope, importance)
    for scope in ("uniform", "global")
    for importance in ("magnitude", "taylor")
}


def torch_pruning(session: Session, scope: str, importance: str) -> Make:
    """Torch-Pruning at one ratio, captured and ready for the same lowering."""
    import torch_pruning as tp

    taylor = tp.importance.GroupTaylorImportance()
    score = taylor if importance == "taylor" else tp.importance.GroupMagnitudeImportance(p=2)
    data = session.data
    assert data is not None

    def make(ratio: float) -> GraphModule:
        model = copy.deepcopy(session.source.module)
        for parameter in model.parameters():
            parameter.requires_grad_(True)
        last = [m for m in model.modules() if isinstance(m, nn.Linear) and m.out_features == 10]
        attentions = [m for m in model.modules() if hasattr(m, "head_dim")]
        pruner = tp.pruner.MetaPruner(
            model, session.inputs[0], importance=score, global_pruning=scope == "global",
            pruning_ratio=ratio, max_pruning_ratio=MOST, ignored_layers=last, round_to=8,
            num_heads={m.qkv: m.num_heads for m in attentions},
        )  # fmt: skip
        if importance == "taylor":
            for inputs, targets in islice(data.train, 8):
                task_loss(model(inputs), targets).backward()
        pruner.step()
        for m in attentions:
            m.head_dim = m.qkv.out_features // (3 * m.num_heads)
        model.zero_grad()
        return _frozen(capture(model.eval(), session.inputs))

    return make


def global_bisection(session: Session) -> Make:
    """What this tool did before: units in order of gate Fisher per MAC, over all groups."""
    costs = {
        c.name: float(c.macs) for c in profile_layers(session.original, session.inputs, repeats=1)
    }
    settings = make_step("prune", importance="fisher", max_ratio=MOST).settings
    context = session.context(session.original)
    pruner = Pruner.of(context, settings, costs, rewarded_multiple("cpu"))

    def make(level: float) -> GraphModule:
        edits = keep_units(context.analysis, pruner.at_level(level))
        return apply(clone(session.original), edits)

    return make


def furthest(session: Session, make: Make, levels: tuple[float, ...]) -> tuple[float, float]:
    """The level of least latency, and that latency (ms, upper bound)."""
    rows = [(took(session, make(level)), level) for level in levels]
    least, level = min(rows)
    return level, least


def took(session: Session, module: GraphModule) -> float:
    return session.relative_latency(module)[0].high_ms


def bisected(
    session: Session, make: Make, budget: float, most: tuple[float, float]
) -> tuple[GraphModule | None, float]:
    """The least level whose measured upper bound is in the window, or the nearest below."""
    low, high = 0.0, most[0]
    if most[1] > budget:
        return None, most[1]
    best = (make(high), most[1])
    for _ in range(TRIALS):
        level = (low + high) / 2
        module = make(level)
        ms = took(session, module)
        if ms <= budget:
            high = level
            if ms > best[1]:
                best = (module, ms)
        else:
            low = level
        if WINDOW * budget < ms <= budget:
            break
    return best


def rows(session: Session, method: str, shares: tuple[float, ...], clock: Any) -> Iterator[Any]:
    """(share, module, ms used, seconds of the search) for one of the methods above."""
    if method == "global bisection":
        make, levels = global_bisection(session), (1.0,)
    else:
        make, levels = torch_pruning(session, *SETTINGS[method]), LEVELS
    started = clock()
    most = furthest(session, make, levels)
    shared = clock() - started
    for share in shares:
        started = clock()
        module, used = bisected(session, make, share * session.reference.value_ms, most)
        yield share, module, used, shared + clock() - started
        shared = 0.0


def _frozen(module: GraphModule) -> GraphModule:
    for parameter in module.parameters():
        parameter.requires_grad_(False)
    return module
