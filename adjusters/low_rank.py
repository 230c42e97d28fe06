"""Layers as smaller ones of a lower rank, by what passes through them, where those are faster here.

Each layer is split in every form it has (graph/edits/factoring.py,
graph/edits/kernel_factoring.py), at the smallest ranks that lose at most `max_error` of its
outputs' variance and the next steps of this machine's kernels; the fastest is taken.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor
from torch.fx import GraphModule

from ..configs.layer_settings import LowRank
from ..core.model_io import Inputs
from ..core.records import LeftAlone
from ..graph.capture import clone, tensor_at
from ..graph.edits.apply import Edit, apply
from ..graph.edits.factoring import factorable, full_rank
from ..graph.edits.kernel_factoring import spatial, tucker
from ..graph.layers import Layer, layers_of
from ..graph.lowering.direct_call import without_pytree
from ..graph.lowering.lower import lower
from ..graph.lowering.single_layer import single_layer
from ..profiling import gate
from ..profiling.clocks import Clock, clock_for
from .methods.factorizations import Factorization, SplitEdit, by_outputs, stepped, weight_and_bias
from .methods.kernel_factorizations import spatial_splits, tucker_splits
from .methods.spectrum import OuterSums, Spectrum, layer_inputs, observe_layers, spectrum
from .plan import Adjuster, Context, Plan

SECONDS, ROUNDS, LEAST_ROUNDS = 0.05, 100, 5
SAME, WORTH = 1.02, 0.95  # of the fastest split's time; of the whole layer's
Times = dict[tuple[object, ...], list[float]]


def plan(context: Context, settings: LowRank) -> Plan:
    layers, left = _chosen(context.module, settings)
    kernels = {o.node for o in layers if {"spatial", "tucker"} & set(_forms(context, o, settings))}
    seen = observe_layers(context, layers, settings.examples, kernels)
    inputs = layer_inputs(context, layers)
    edits: list[Edit] = []
    weights: dict[str, Tensor] = {}
    times: Times = {}
    for layer in layers:
        splits = _splits(context, layer, seen.get(layer.node), settings)
        split, reason = splits[0] if splits else None, _no_split(settings)
        if splits and not _asked(settings):
            split, reason = _measured(context, layer, inputs[layer.node], splits, times)
        if split is None:
            left.append(LeftAlone(layer.name, reason))
            continue
        edits.append(split.edit)
        weights |= split.weights()
    return Plan(tuple(edits), tuple(left), must_be_faster=True, weights=weights)


def _chosen(module: GraphModule, settings: LowRank) -> tuple[list[Layer], list[LeftAlone]]:
    chosen, left = [], []
    for layer in layers_of(module):
        if reason := factorable(layer):
            left.append(LeftAlone(layer.name, reason))
        elif not settings.selects(layer.name):
            left.append(LeftAlone(layer.name, "`match` and `skip` leave it whole"))
        else:
            chosen.append(layer)
    return chosen, left


def _asked(settings: LowRank) -> bool:
    return settings.rank is not None or settings.ratio is not None


def _no_split(settings: LowRank) -> str:
    rank = "that rank" if _asked(settings) else f"an error of at most {settings.max_error:g}"
    return f"split with {rank} it would take no fewer operations than as it is"


def _forms(context: Context, layer: Layer, settings: LowRank) -> tuple[str, ...]:
    """Ways to split the layer. A rank that is asked for is that of the usual form."""
    kernel = tuple(tensor_at(context.module, layer.weight).shape[2:])
    if _asked(settings) or not tucker(layer, kernel):
        return ("channels",)
    possible = (
        ("channels", "spatial", "tucker") if spatial(layer, kernel) else ("channels", "tucker")
    )
    return tuple(form for form in possible if settings.form in ("auto", form))


def _splits(
    context: Context, layer: Layer, seen: OuterSums | None, settings: LowRank
) -> list[Factorization]:
    module, splits = context.module, list[Factorization]()
    forms = _forms(context, layer, settings)
    if "channels" in forms:
        weight, bias = weight_and_bias(module, layer)
        decomposition = spectrum(weight, bias, seen)
        ranks = _ranks(decomposition, full_rank(weight), settings)
        splits += by_outputs(module, layer, decomposition, ranks)
    if "spatial" in forms:
        splits += spatial_splits(module, layer, seen, settings.max_error)
    if "tucker" in forms:
        splits += tucker_splits(module, layer, seen, settings.max_error)
    return splits


def _ranks(decomposition: Spectrum, full: int, settings: LowRank) -> list[int]:
    """The rank asked for, or the lowest within `max_error` and the steps above it."""
    if settings.rank is not None:
        return [int(settings.rank)]
    if settings.ratio is not None:
        return [max(1, round(settings.ratio * full))]
    return stepped(decomposition.rank(settings.max_error), full)


def _measured(
    context: Context, layer: Layer, example: Tensor, splits: list[Factorization], times: Times
) -> tuple[Factorization | None, str]:
    """Of those as fast as the fastest the most exact, or None and why the layer stays."""
    weight = tensor_at(context.module, layer.weight)
    edits = [replace(split.edit, node="") for split in splits]
    key = (layer.node.target, example.shape, weight.shape, *map(str, layer.node.args[3:]), *edits)
    if key not in times:
        times[key] = _time(context, single_layer(context.module, layer, example), example, edits)
    whole, *took = times[key]
    fastest = min(took)
    fast = [(split, ms) for split, ms in zip(splits, took, strict=True) if ms <= SAME * fastest]
    split, ms = min(fast, key=lambda pair: pair[0].error)
    if ms < WORTH * whole:
        return split, ""
    return None, f"{split.name}: takes {ms:.3g} ms here, the layer as it is {whole:.3g} ms"


def _time(
    context: Context, whole: GraphModule, example: Tensor, edits: list[SplitEdit]
) -> list[float]:
    """ms of the whole layer, then of each split."""
    name = next(layers_of(whole)).node.name
    split = [apply(clone(whole), [replace(edit, node=name)]) for edit in edits]
    runs = [_call(context, module, example) for module in (whole, *split)]
    with gate.alone():
        return undisturbed_ms(runs, clock_for(context.device))


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
    ready = without_pytree(ready)

    def run() -> object:
        with torch.inference_mode():
            return ready(example)

    return run


ADJUSTER = Adjuster(
    "low_rank", "split layers into smaller ones of a lower rank where that is faster", plan
)
