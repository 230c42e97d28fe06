"""Options for a layer besides running as it is, in integers or split: their time and loss here.

Times are those of the layer's nodes in the whole model with every layer run that way: alone, a
layer would pay for conversions that its neighbors share. The rise in loss is measured with this
one layer run that way, in the currency of widths and blocks (adjusters/methods/moments.py).
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule

from ..adjusters.methods.moments import rise
from ..adjusters.plan import EXACT, Context, Plan
from ..adjusters.registry import ADJUSTERS
from ..backends.registry import runtime_node_times
from ..configs.base_settings import Settings
from ..configs.layer_settings import LowRank
from ..core.model_io import Inputs
from ..graph.capture import clone, node_named
from ..graph.edits.apply import Factor, QuantizeWeight, apply
from ..graph.layers import Layer, layers_of
from ..profiling.losses import outputs_of
from .lab import Lab
from .number_formats import FLOAT, integer_steps, low_rank_steps

EXAMPLES, FEWEST, SECONDS = 64, 8, 8.0
FASTER = 0.97  # of the time as it is
FINER = 4.0
OWN = (Factor, QuantizeWeight)  # edits that say how a layer runs


@dataclass(frozen=True)
class LayerOption:
    """`step`: the place of the recipe's step, FLOAT where the layer stays as it is. `share`: of
    the time that it takes then. `rank`: of what it is split into."""

    step: int
    share: float
    loss: float
    rank: int = 0

    def at(self, kernel: int, whole: tuple[int, int], ins: int, outs: int) -> float:
        """`share` at other widths (inputs, outputs), where `kernel` inputs are read per channel.

        What a split multiplies shrinks with one width, what the layer does with both; where it
        multiplies no less there is no split.
        """
        if not self.rank:
            return self.share
        part, before = (
            self.rank * (i * kernel + o) / (i * kernel * o) for i, o in ((ins, outs), whole)
        )
        return min(1.0, self.share * part / before) if part < 1 else 1.0


AS_IT_IS = LayerOption(FLOAT, 1.0, 0.0)


@dataclass(frozen=True)
class LayerOptions:
    """By the node of each layer that has any, its options; the last is to stay as it is."""

    of: Mapping[str, tuple[LayerOption, ...]] = field(default_factory=dict)

    @classmethod
    def measured(cls, lab: Lab, start: Context) -> LayerOptions:
        """Measure what the recipe's steps offer for the layers of the model at `start`."""
        options_of: dict[str, tuple[LayerOption, ...]] = {}
        usual = runtime_node_times(start.module, start.inputs, lab.runtime)
        for place in (*low_rank_steps(lab.recipe), *integer_steps(lab.recipe)):
            step = lab.recipe.adjust[place]
            try:
                rows = [row for settings in _degrees(step.settings)
                        for row in _offered(lab, start, place, settings, usual)]  # fmt: skip
            except Exception as error:  # the layers stay as they are, and the step says why
                lab.leave_out_step(place, error)
                continue
            for node, option in rows:
                if option.rank not in [o.rank for o in options_of.get(node, ()) if o.step == place]:
                    options_of[node] = (*options_of.get(node, ()), option)
        return cls({node: (*options, AS_IT_IS) for node, options in options_of.items()})

    @property
    def steps(self) -> tuple[int, ...]:
        return tuple(sorted({o.step for options in self.of.values() for o in options} - {FLOAT}))

    def taken(self, picks: Mapping[str, int]) -> dict[str, LayerOption]:
        """By node: how it runs, of those that are not as they are."""
        chosen = {node: options[picks[choice_of(node)]] for node, options in self.of.items()}
        return {node: option for node, option in chosen.items() if option.step != FLOAT}

    def barred_outside(self, *steps: int) -> dict[str, tuple[int, ...]]:
        """By the name of each layer's choice, the options that no step of `steps` offers.

        FLOAT stands for a layer as it is; a layer with no option left stays as it is.
        """
        rows = {}
        for node, options in self.of.items():
            wanted = [o.step for o in options if o.step in steps] or [FLOAT]
            rows[choice_of(node)] = tuple(i for i, o in enumerate(options) if o.step not in wanted)
        return rows


def choice_of(node: str) -> str:
    """Name of the choice between a layer's options; groups have choices under their own names."""
    return f"{node} runs"


def _degrees(settings: Settings) -> tuple[Settings, ...]:
    """The settings to try on one layer; for ranks two, one of which loses much less."""
    if not isinstance(settings, LowRank):
        return (settings,)
    usual = settings.model_copy(update={"form": "channels"})
    return (usual, usual.model_copy(update={"max_error": settings.max_error / FINER}))


def _offered(
    lab: Lab, start: Context, place: int, settings: Settings, usual: Mapping[str, float]
) -> list[tuple[str, LayerOption]]:
    adjuster = ADJUSTERS[lab.recipe.adjust[place].name]
    plan = adjuster.plan(lab.context(start.module), settings)
    return list(_faster_options(lab, start, plan, place, usual))


def _faster_options(
    lab: Lab, start: Context, plan: Plan, place: int, usual: Mapping[str, float]
) -> Iterator[tuple[str, LayerOption]]:
    """By node: how the plan has it run, where that is faster."""
    if not plan.edits:
        return
    module, inputs = start.module, start.inputs
    changed = plan.apply(clone(module))
    times = runtime_node_times(changed, inputs, lab.runtime_for(changed))
    edited = {e.node: e for e in plan.edits if isinstance(e, OWN)}
    shares = {}
    for layer in layers_of(module):
        node = layer.node.name
        if node in edited and usual.get(node):
            took = sum(times.get(name, math.inf) for name in _parts(module, changed, node))
            shares[layer] = took / usual[node]
    faster = {layer: share for layer, share in shares.items() if share < FASTER}
    if not faster:
        return
    lab.progress.stage("judging layers one by one", len(faster))
    for layer, loss in _losses(lab, lab.context(module), plan, faster):
        if math.isfinite(loss):
            node = layer.node.name
            rank = getattr(edited[node], "rank", 0)
            yield node, LayerOption(place, faster[layer], loss, rank)


def _parts(module: GraphModule, changed: GraphModule, name: str) -> list[str]:
    """A layer's node in the changed graph, and what it was split into behind it."""
    names = {n.name for n in module.graph.nodes}
    layers = {layer.node for layer in layers_of(changed)}
    node = node_named(changed, name)
    rest = [u.name for u in node.users if u in layers and u.name not in names] if node else []
    return [name, *rest]


def _losses(
    lab: Lab, context: Context, plan: Plan, layers: Iterable[Layer]
) -> Iterator[tuple[Layer, float]]:
    """The rise in loss with each layer alone as the plan has it."""
    folded = apply(clone(context.module), [e for e in plan.edits if isinstance(e, EXACT)])
    now = {layer.node.name: layer for layer in layers_of(folded)}
    layers = list(layers)
    given, started = _examples(context, EXAMPLES), time.monotonic()
    wanted = [_outputs(folded, inputs, context) for inputs, _ in given]
    took = max(1e-9, time.monotonic() - started) * len(layers)
    left = max(FEWEST, round(EXAMPLES * min(1.0, SECONDS / took)))
    samples = []  # of one pass: in another one a loader may give other examples
    for (inputs, targets), outputs in zip(given, wanted, strict=True):
        count = min(left, len(outputs))
        if count:
            samples.append((_first(inputs, count), targets, outputs[:count]))
        left -= count
    total = sum(len(outputs) for *_, outputs in samples)
    for layer in layers:
        trial = plan.apply_to_layer(now[layer.node.name], clone(folded))
        risen = (
            len(outputs) * rise(outputs, _outputs(trial, inputs, context), targets)
            for inputs, targets, outputs in samples
        )
        yield layer, sum(risen) / total
        lab.progress.advance(1)


def _outputs(module: GraphModule, inputs: Inputs, context: Context) -> Tensor:
    with torch.no_grad():
        return outputs_of(module, inputs, context.device)


def _examples(context: Context, most: int) -> list[tuple[Inputs, Any]]:
    """The first of the training data, or the example inputs where there is none."""
    batches, left = list[tuple[Inputs, Any]](), most
    for inputs, targets in context.train or ():
        given = _first(Inputs.of(inputs), left).map(lambda x: x.to(context.device))
        batches.append((given, targets))
        left -= len(given[0])
        if left <= 0:
            break
    return batches or [(context.inputs, None)]


def _first(inputs: Inputs, count: int) -> Inputs:
    return inputs.map(lambda x: x[:count] if x.dim() else x)
