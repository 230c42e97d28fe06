"""Convolutions and linear layers in integers: weights per output channel, activations per tensor.

Jacob et al. 2018, sections 2 and 3; 4 bits in groups of inputs as in Frantar et al. 2022. Batch
norms are folded first, as part of the same step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor
from torch.fx import GraphModule, Node

from ..configs.layer_settings import Quantize
from ..core.model_io import Inputs, primary
from ..core.naming import outside
from ..core.records import LeftAlone
from ..graph.capture import clone, tensor_at
from ..graph.edits.apply import (
    Edit,
    FoldBatchNorm,
    QuantizeDynamic,
    QuantizeInput,
    QuantizeWeight,
    apply,
)
from ..graph.edits.folding import foldable
from ..graph.edits.integer_weights import group_of
from ..graph.edits.quantization import LAYERS, quantizable
from ..graph.layers import layers_of
from ..graph.lowering.fusing import residual_of
from ..graph.lowering.int8 import largest_level
from .methods.bias_correction import corrected_biases
from .methods.calibration import batches, observe
from .methods.equalization import equalization_edits
from .methods.rounding import gptq_rounding
from .plan import Adjuster, Context, Plan

Steps = dict[str, tuple[float, int]]  # by activation: scale and zero point
CALIBRATIONS = ("minmax", "mse", "percentile")
JUDGED = 64  # examples that outputs are compared on


def plan(context: Context, settings: Quantize) -> Plan:
    static = settings.scheme == "int8_static"
    if static and context.train is None:
        reason = "there is no training data to take the ranges of activations from"
        return Plan((), (LeftAlone("quantize", reason),))
    folds = [FoldBatchNorm(n.name) for n in context.module.graph.nodes if foldable(n)]
    module = apply(clone(context.module), folds)
    scales = equalization_edits(context, module, settings.examples) if settings.equalize else []
    apply(module, scales)
    chosen, left = _chosen(module, settings)
    steps = _steps(context, module, chosen, settings) if static else {}
    if settings.keep_float:
        errors = sensitivity(context, module, chosen, lambda node: _edits([node], steps, settings))
        kept = sorted(chosen, key=lambda n: -errors[n.name])[: settings.keep_float]
        left += [
            LeftAlone(_name(n), f"kept in float: integers only here move the outputs by "
                      f"{errors[n.name]:.2g} of their size") for n in kept
        ]  # fmt: skip
        chosen = [n for n in chosen if n not in kept]
    edits = _edits(chosen, steps, settings)
    weights: dict[str, Tensor] = {}
    if settings.rounding == "adaptive" and context.train is None:
        left.append(LeftAlone("rounding", "there is no training data to round by"))
    elif settings.rounding == "adaptive":
        integer = apply(clone(module), edits)
        weights = gptq_rounding(context, module, integer, chosen, settings.examples)
    elif settings.bias_correction:
        integer, levels, few = apply(clone(module), edits), largest_level(), settings.examples
        weights = corrected_biases(context, module, integer, chosen, steps, levels, few)
    must_be_faster = settings.scheme in ("int8_static", "int8_dynamic")
    every = (*folds, *scales, *edits) if edits else ()
    return Plan(every, tuple(left), must_be_faster=must_be_faster, weights=weights)


def _chosen(module: GraphModule, settings: Quantize) -> tuple[list[Node], list[LeftAlone]]:
    chosen, left = [], []
    for layer in layers_of(module):
        if settings.scheme in ("int8_dynamic", "int4_weight") and layer.spatial_dims:
            left.append(LeftAlone(layer.name, f"`{settings.scheme}` is for linear layers"))
        elif layer.node.target not in LAYERS:
            left.append(
                LeftAlone(layer.name, "only conv1d, conv2d and linear layers are quantized")
            )
        elif not quantizable(layer.node):
            left.append(LeftAlone(layer.name, "its weight is shared or not float32"))
        elif settings.scheme == "int4_weight" and not _group(layer.node, settings):
            left.append(LeftAlone(layer.name, "its inputs do not divide into groups of 16 or more"))
        elif not settings.selects(layer.name):
            left.append(LeftAlone(layer.name, "`match` and `skip` leave it in float"))
        else:
            chosen.append(layer.node)
    return chosen, left


def _group(node: Node, settings: Quantize) -> int | None:
    weight, module = node.args[1], node.graph.owning_module
    assert isinstance(weight, Node) and module is not None
    return group_of(tensor_at(module, str(weight.target)), settings.group)


def _name(node: Node) -> str:
    weight = node.args[1]
    assert isinstance(weight, Node)
    return outside(str(weight.target).rpartition(".")[0] or str(weight.target))


def _reads(chosen: Iterable[Node]) -> dict[Node, set[int]]:
    """Arguments that are rounded: the layers' inputs, and what is added to a convolution.

    The kernels add in integers only where both sides are."""
    reads: dict[Node, set[int]] = {}
    for node in chosen:
        reads[node] = {0}
        residual = residual_of(node) if node.target is torch.ops.aten.conv2d.default else None
        if residual is None or residual.add in reads:
            continue
        place = residual.add.args.index(residual.other)
        if place or residual.add.target is torch.ops.aten.add.Tensor:  # not what `add_` writes to
            reads[residual.add] = {place}
    return reads


def _steps(context: Context, module: GraphModule, chosen: list[Node], settings: Quantize) -> Steps:
    """By the calibration asked for, or by the one that leaves the outputs nearest."""
    reads, level = _reads(chosen), largest_level()
    seen = observe(context, module, reads, settings.examples) if reads else {}
    names = CALIBRATIONS if settings.calibration == "auto" else (settings.calibration,)
    tried = [{at: one.steps(name, level) for at, one in seen.items()} for name in names]
    if len(tried) == 1:
        return tried[0]
    given = list(batches(context, JUDGED))
    wanted = _outputs(module, given)

    def error(steps: Steps) -> float:
        trial = apply(clone(module), _edits(chosen, steps, settings))
        return float((_outputs(trial, given) - wanted).norm())

    return min(tried, key=error)


def _edits(chosen: Iterable[Node], steps: Steps, settings: Quantize) -> list[Edit]:
    chosen, level = list(chosen), largest_level()
    if settings.scheme == "int4_weight":
        return [QuantizeWeight(n.name, _group(n, settings)) for n in chosen]
    edits: list[Edit] = [QuantizeWeight(n.name) for n in chosen]
    if settings.scheme == "int8_dynamic":
        edits += [QuantizeDynamic(n.name, 0, level // 2) for n in chosen]
    for node, positions in _reads(chosen).items() if settings.scheme == "int8_static" else ():
        for place in positions:
            source = node.args[place]
            assert isinstance(source, Node)
            if source.name in steps:  # with other layers in float other sides of sums are rounded
                edits.append(QuantizeInput(node.name, place, *steps[source.name], level))
    return edits


def sensitivity(
    context: Context,
    module: GraphModule,
    chosen: Iterable[Node],
    edits_of: Callable[[Node], list[Edit]],
) -> dict[str, float]:
    """By node name: |outputs with only this layer in integers - outputs| / |outputs|."""
    given = list(batches(context, JUDGED)) or [context.inputs]
    wanted = _outputs(module, given)
    errors = {}
    for node in chosen:
        trial = apply(clone(module), edits_of(node))
        errors[node.name] = float((_outputs(trial, given) - wanted).norm() / wanted.norm())
    return errors


def _outputs(module: GraphModule, given: Iterable[Inputs]) -> Tensor:
    with torch.no_grad():
        return torch.cat([primary(inputs.call(module)).double().flatten() for inputs in given])


ADJUSTER = Adjuster(
    "quantize", "run convolutions and linear layers in int8, or hold weights in 4 bits", plan
)
