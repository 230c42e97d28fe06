"""The whole model in half precision, where this machine has arithmetic for it.

CPUs without bfloat16 instructions take 30 times as long, so one layer is timed first.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch.fx import GraphModule

from ..configs.layer_settings import Precision
from ..core.errors import text_line
from ..core.model_io import leaves, plain
from ..core.records import LeftAlone
from ..graph.capture import clone, tensor_at
from ..graph.edits.apply import Cast, Edit, FoldBatchNorm, apply
from ..graph.edits.casting import HALVES, float_state
from ..graph.edits.folding import foldable
from ..graph.edits.integer_weights import integer_weight
from ..graph.layers import Layer, layers_of
from ..graph.shown_sizes import ShownSizes
from ..profiling.timer import measure_interleaved
from .plan import Adjuster, Context, Plan

SECONDS = 0.4
# Less may still gain once the weight is packed: the step is measured as a whole.
SLOWER, LOST_MS = 3.0, 0.1


def plan(context: Context, settings: Precision) -> Plan:
    name = settings.dtype
    if name not in HALVES:
        return Plan((), (LeftAlone("precision", f"`dtype` is {name}"),))
    if any(integer_weight(n) for n in context.module.graph.nodes):
        return Plan((), (LeftAlone("precision", "the model is in int8 already"),))
    if state := float_state(context.module):
        why = f"each call writes `{state}`, where errors of half precision would add up"
        return Plan((), (LeftAlone("precision", why),))
    # Folded in float32 first: statistics rounded to half precision would cost accuracy.
    folds = [FoldBatchNorm(n.name) for n in context.module.graph.nodes if foldable(n)]
    folded = apply(clone(context.module), folds)
    kept = [layer for layer in layers_of(folded) if not settings.selects(layer.name)]
    left = tuple(LeftAlone(la.name, "`match` and `skip` leave it in float32") for la in kept)
    edits: tuple[Edit, ...] = (*folds, Cast(name, tuple(la.node.name for la in kept)))
    reason = _slow(context, HALVES[name]) or _broken(context, apply(clone(context.module), edits))
    if reason:
        return Plan((), (LeftAlone("precision", reason),))
    return Plan(edits, left, must_be_faster=True)


def _slow(context: Context, dtype: torch.dtype) -> str | None:
    """A sentence, where the layer with the largest weight is slower in `dtype` here."""
    layers = [layer for layer in layers_of(context.module) if _shape(context, layer)]
    if not layers:
        return None
    layer = max(layers, key=lambda one: tensor_at(context.module, one.weight).numel())
    runs = [_call(context, layer, kind) for kind in (torch.float32, dtype)]
    rows = measure_interleaved(runs, max_seconds=SECONDS, device=context.device)
    full, half = (min(row.samples_ms) for row in rows)  # what it takes undisturbed
    if half <= SLOWER * full or half - full < LOST_MS:
        return None
    return (
        f"`{layer.name}` takes {half:.3g} ms in {str(dtype).removeprefix('torch.')} and "
        f"{full:.3g} ms in float32: this machine has no fast arithmetic for it"
    )


def _shape(context: Context, layer: Layer) -> list[int] | None:
    shape = ShownSizes.of(context.module, context.inputs).of_node(layer.source)
    if shape is None:
        return None
    # Example values are those of the capture, before channels were pruned.
    shape[layer.channel_axis] = tensor_at(context.module, layer.weight).shape[1] * layer.groups
    return shape


def _call(context: Context, layer: Layer, dtype: torch.dtype) -> Callable[[], object]:
    shape = _shape(context, layer)
    assert shape is not None
    x = torch.randn(shape, device=context.device).to(dtype)
    tensors = [tensor_at(context.module, n).detach().to(dtype) if n else None
            for n in (layer.weight, layer.bias)]  # fmt: skip
    target, rest = layer.node.target, layer.node.args[3:]
    assert callable(target)

    def run() -> object:
        with torch.inference_mode():
            return target(x, *tensors, *rest)

    return run


def _broken(context: Context, module: GraphModule) -> str | None:
    """A sentence, where the model does not run in half precision or overflows."""
    try:
        with torch.no_grad():
            outputs = leaves(plain(context.inputs.call(module)))
    except (RuntimeError, NotImplementedError) as error:
        return f"it does not run so: {text_line(error)}"
    floats = [x for x in outputs if x.is_floating_point()]
    if all(bool(torch.isfinite(x).all()) for x in floats):
        return None
    return "its values leave the range of this number format"


ADJUSTER = Adjuster("precision", "compute in bfloat16 or float16 where that is faster", plan)
