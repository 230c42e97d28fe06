"""Ways to run a layer other than as it is: what each takes here, and what it costs.

Times are those of the layer's node in the whole model with every layer run that way: alone, a layer
would pay for conversions that its neighbours share. The rise in loss is measured with this one
layer run that way, in the currency of widths and blocks (adjusters/moments.py).
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule

from ..adjusters.moments import rise
from ..adjusters.plan import Context, Plan, outputs_of
from ..adjusters.registry import ADJUSTERS
from ..core.calling import Inputs
from ..graph.capture import clone
from ..graph.edits import Edit, FoldBatchNorm, apply
from ..graph.layers import layers_of
from ..profiling.layers import node_times
from .bench import Bench
from .forms import FLOAT, integers
from .runtimes import lowered

EXAMPLES, FEWEST, SECONDS = 64, 8, 8.0
FASTER = 0.97  # of the time as it is


@dataclass(frozen=True)
class Way:
    """`step`: the place of the recipe's step, FLOAT where the layer stays as it is. `share`: of
    the time that it takes then."""

    step: int
    share: float
    loss: float


AS_IT_IS = Way(FLOAT, 1.0, 0.0)


@dataclass(frozen=True)
class Ways:
    """By the node of each layer that has any, its ways; the last is as it is."""

    of: Mapping[str, tuple[Way, ...]] = field(default_factory=dict)

    @classmethod
    def measured(cls, bench: Bench, module: GraphModule) -> Ways:
        """What the recipe's steps offer for the layers of `module`."""
        found: dict[str, tuple[Way, ...]] = {}
        context = bench.context(module)
        usual = node_times(lowered(module, bench.inputs, bench.runtime), bench.inputs)
        for place in integers(bench.recipe):
            step = bench.recipe.adjust[place]
            plan = ADJUSTERS[step.name].plan(context, step.settings)
            if not plan.edits:
                continue
            changed = plan.carry_out(clone(module))
            ready = lowered(changed, bench.inputs, bench.runtime_for(changed))
            times = node_times(ready, bench.inputs)
            shares = {n: times[n] / usual[n] for n in _layers(module, plan) if usual.get(n)}
            faster = {n: s for n, s in shares.items() if s < FASTER}
            bench.talk.stage("judging layers in other formats", len(faster))
            for node, loss in _losses(bench, context, plan, faster):
                if math.isfinite(loss):
                    found[node] = (*found.get(node, ()), Way(place, faster[node], loss))
        return cls({node: (*ways, AS_IT_IS) for node, ways in found.items()})

    @property
    def steps(self) -> tuple[int, ...]:
        return tuple(sorted({w.step for ways in self.of.values() for w in ways} - {FLOAT}))

    def taken(self, picks: Mapping[str, int]) -> dict[str, int]:
        """By node: the recipe's step by which it runs, of those that are not as they are."""
        steps = {node: ways[picks[choice_of(node)]].step for node, ways in self.of.items()}
        return {node: step for node, step in steps.items() if step != FLOAT}

    def others(self, *steps: int) -> dict[str, tuple[int, ...]]:
        """By the name of each layer's choice: the options that are none of `steps`, which hold
        FLOAT for a layer as it is; where none is, the layer stays as it is."""
        rows = {}
        for node, ways in self.of.items():
            wanted = [w.step for w in ways if w.step in steps] or [FLOAT]
            rows[choice_of(node)] = tuple(i for i, w in enumerate(ways) if w.step not in wanted)
        return rows


def choice_of(node: str) -> str:
    """Of the choice between a layer's ways, beside those of groups."""
    return f"{node} runs"


def _layers(module: GraphModule, plan: Plan) -> list[str]:
    edited = {getattr(e, "node", "") for e in plan.edits if not isinstance(e, FoldBatchNorm)}
    return [layer.node.name for layer in layers_of(module) if layer.node.name in edited]


def _losses(
    bench: Bench, context: Context, plan: Plan, nodes: Mapping[str, float]
) -> Iterator[tuple[str, float]]:
    """By node: the rise in loss with this layer alone as the plan has it."""
    folds = [e for e in plan.edits if isinstance(e, FoldBatchNorm)]
    folded = apply(clone(context.module), folds)
    given, started = _examples(context, EXAMPLES), time.monotonic()
    wanted = [_outputs(folded, inputs, context) for inputs, _ in given]
    took = max(1e-9, time.monotonic() - started) * len(nodes)
    if took > SECONDS:
        given = _examples(context, max(FEWEST, round(EXAMPLES * SECONDS / took)))
    for node in nodes:
        own: list[Edit] = [e for e in plan.edits if getattr(e, "node", "") == node]
        trial, total, rows = apply(clone(folded), own), 0.0, 0
        for (inputs, targets), outputs in zip(given, wanted, strict=False):
            changed = _outputs(trial, inputs, context)
            total += len(changed) * rise(outputs[: len(changed)], changed, targets)
            rows += len(changed)
        yield node, total / rows
        bench.talk.advance(1)


def _outputs(module: GraphModule, inputs: Inputs, context: Context) -> Tensor:
    with torch.no_grad():
        return outputs_of(module, inputs, context.device)


def _examples(context: Context, most: int) -> list[tuple[Inputs, Any]]:
    """The first of the training data, or the example inputs where there is none."""
    found, left = list[tuple[Inputs, Any]](), most
    for inputs, targets in context.train or ():
        given = _first(Inputs.of(inputs), left).map(lambda x: x.to(context.device))
        found.append((given, targets))
        left -= len(given[0])
        if left <= 0:
            break
    return found or [(context.inputs, None)]


def _first(inputs: Inputs, count: int) -> Inputs:
    return inputs.map(lambda x: x[:count])
