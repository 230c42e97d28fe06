"""Layers as two of a lower rank, by what their outputs vary in, where that measures faster here.

The rank of each layer is the least that loses at most `max_error` of its outputs' variance, taken
up to the next step of this machine's kernels; sources in graph/factoring.py.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule

from ..core.calling import Inputs
from ..core.records import LeftAlone
from ..graph.alone import alone
from ..graph.capture import clone, tensor_at
from ..graph.direct import called_directly
from ..graph.edits import Edit, Factor, apply
from ..graph.factoring import factorable, factors, full_rank, new_name
from ..graph.layers import Layer, layers_of
from ..graph.lowering import lower
from ..profiling import gate
from ..profiling.timer import Clock, clock_for
from .plan import Adjuster, Context, Plan
from .spectrum import Spectrum, inputs_of, look, spectrum

STEPS = (8, 16, 32)  # kernels work on so many channels at once
SECONDS, ROUNDS, LEAST_ROUNDS = 0.05, 100, 5
SAME, WORTH = 1.02, 0.95  # of the fastest rank's time; of the whole layer's
Times = dict[tuple[object, ...], dict[int, float]]


def plan(context: Context, settings: Any) -> Plan:
    layers, left = _chosen(context.module, settings)
    seen, inputs = look(context, layers, settings.examples), inputs_of(context, layers)
    edits: list[Edit] = []
    weights: dict[str, Tensor] = {}
    times: Times = {}
    for layer in layers:
        weight, bias = _held(context.module, layer)
        found = spectrum(weight, bias, seen.get(layer.node))
        rank, reason = _wanted(found, weight, settings)
        if rank and not _asked(settings):
            rank, reason = _measured(context, layer, inputs[layer.node], rank, times)
        if not rank:
            left.append(LeftAlone(layer.name, reason))
            continue
        edits.append(Factor(layer.node.name, rank))
        weights |= _values(context.module, layer, found, rank)
    return Plan(tuple(edits), tuple(left), for_speed=True, weights=weights)


def _chosen(module: GraphModule, settings: Any) -> tuple[list[Layer], list[LeftAlone]]:
    chosen, left = [], []
    for layer in layers_of(module):
        named = any(fnmatchcase(layer.name, p) for p in settings.match)
        if not named or any(fnmatchcase(layer.name, p) for p in settings.skip):
            left.append(LeftAlone(layer.name, "`match` and `skip` leave it whole"))
        elif reason := factorable(layer):
            left.append(LeftAlone(layer.name, reason))
        else:
            chosen.append(layer)
    return chosen, left


def _asked(settings: Any) -> bool:
    return settings.rank is not None or settings.ratio is not None


def _wanted(found: Spectrum, weight: Tensor, settings: Any) -> tuple[int, str]:
    """The rank before anything is timed, or 0 and why the layer stays."""
    full = full_rank(weight)
    if settings.rank is not None:
        rank = int(settings.rank)
    elif settings.ratio is not None:
        rank = max(1, round(settings.ratio * full))
    else:
        rank = found.rank(settings.max_error)
    if rank < full and _saves(weight, rank):
        return rank, ""
    return 0, f"rank {rank} of {full} would take no fewer operations than the layer as it is"


def _saves(weight: Tensor, rank: int) -> bool:
    return rank * (weight[0].numel() + len(weight)) < weight.numel()


def _measured(
    context: Context, layer: Layer, example: Tensor, least: int, times: Times
) -> tuple[int, str]:
    """The largest rank that is as fast as the fastest, or 0 and why the layer stays."""
    weight = tensor_at(context.module, layer.weight)
    steps = {-(-least // step) * step for step in STEPS} | {least}
    ranks = sorted(r for r in steps if r < full_rank(weight) and _saves(weight, r))
    key = (layer.node.target, example.shape, weight.shape, *map(str, layer.node.args[3:]), *ranks)
    if key not in times:
        times[key] = _time(context, alone(context.module, layer, example), example, ranks)
    took = times[key]
    fastest = min(took[r] for r in ranks)
    rank = max(r for r in ranks if took[r] <= SAME * fastest)
    if took[rank] < WORTH * took[0]:
        return rank, ""
    return 0, f"rank {least} takes {took[least]:.3g} ms here, the layer as it is {took[0]:.3g} ms"


def _time(
    context: Context, whole: GraphModule, example: Tensor, ranks: list[int]
) -> dict[int, float]:
    """ms by rank, 0 for the whole layer."""
    name = next(layers_of(whole)).node.name
    split = [apply(clone(whole), [Factor(name, rank)]) for rank in ranks]
    runs = [_call(context, module, example) for module in (whole, *split)]
    with gate.alone():
        took = undisturbed_ms(runs, clock_for(context.device))
    return dict(zip((0, *ranks), took, strict=True))


def undisturbed_ms(runs: Sequence[Callable[[], object]], clock: Clock) -> list[float]:
    """The least that each takes, in turns: a slow moment of the machine meets all alike."""
    for run in runs:
        run()
    best, started = [math.inf] * len(runs), clock.now()
    for number in range(ROUNDS):
        if number >= LEAST_ROUNDS and clock.now() - started > SECONDS * len(runs):
            break
        for at, run in enumerate(runs):
            run()  # the other's data is in the caches
            best[at] = min(best[at], clock.time(run))
    return best


def _call(context: Context, module: GraphModule, example: Tensor) -> Callable[[], object]:
    ready = lower(module, Inputs((example,))) if context.lowered else clone(module)
    ready = called_directly(ready)

    def run() -> object:
        with torch.inference_mode():
            return ready(example)

    return run


def _held(module: GraphModule, layer: Layer) -> tuple[Tensor, Tensor]:
    weight = tensor_at(module, layer.weight).detach()
    bias = tensor_at(module, layer.bias).detach() if layer.bias else weight.new_zeros(len(weight))
    return weight, bias


def _values(module: GraphModule, layer: Layer, found: Spectrum, rank: int) -> dict[str, Tensor]:
    weight, bias = _held(module, layer)
    second = new_name(module, layer.weight)
    first, other = factors(weight, found.basis[:, :rank])
    shift = found.bias(rank, bias).to(weight.dtype)
    name = layer.bias or second.removesuffix("weight") + "bias"
    return {layer.weight: first, second: other, name: shift}


ADJUSTER = Adjuster("low_rank", "split layers into two of a lower rank where that is faster", plan)
