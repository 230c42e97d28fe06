"""The model at a smaller input size, as far as it allows one: the graph resizes what comes in.

Where a class computes with the size (views, positions of tokens), it is captured again at the
smaller one, and the numbers that differ become edits. Layers are not trained for it here; a
following `finetune` does that (Touvron et al. 2019, section 3, on what a change of size costs).
"""

from __future__ import annotations

from math import prod

from torch import Tensor, nn
from torch.fx import GraphModule
from torch.utils._pytree import tree_leaves

from ..configs.settings import InputSize
from ..core.errors import CaptureError, EditError
from ..core.model_io import Inputs
from ..core.records import LeftAlone
from ..graph.capture import capture, clone
from ..graph.edits.apply import Edit, Resize, apply
from ..graph.edits.recapture import sizes_between
from ..graph.edits.resizing import smaller
from ..graph.failure import failure
from ..graph.shapes import output_shapes
from ..profiling.macs import op_name
from .plan import Adjuster, Context, Plan

# Strides, kernels, groups and orders of axes do not follow from a size; nor do smaller numbers.
OWN_NUMBERS = ("conv", "max_pool", "avg_pool", "group_norm", "permute")
LEAST = 4
NEITHER = "no input is a float image [N, C, H, W] or an integer sequence [N, T]"


def plan(context: Context, settings: InputSize) -> Plan:
    edits, reason = _edits(context, settings)
    return Plan(edits, (LeftAlone("input size", reason),) if reason else ())


def _edits(context: Context, settings: InputSize) -> tuple[tuple[Edit, ...], str]:
    """Edits that make the model run at the size asked for, or the reason why none do."""
    if context.inputs.varies:
        return (), "the sizes of its inputs vary"
    resizable = _resizable(context.inputs)
    sizes = {tuple(x.shape[2 if x.dim() == 4 else 1 :]) for x in resizable}
    if len(sizes) != 1:
        return (), f"its inputs have several sizes: {sorted(sizes)}" if sizes else NEITHER
    (whole,) = sizes
    size = _wanted(whole, settings)
    here = "x".join(map(str, size))
    if len(size) != len(whole):
        return (), f"{here} is not a length of a sequence"
    if size == whole or any(new > old for new, old in zip(size, whole, strict=True)):
        return (), f"{here} is not smaller than its input, {'x'.join(map(str, whole))}"
    ids = {id(x) for x in resizable}
    small = context.inputs.map(lambda x: smaller(x, size) if id(x) in ids else x)
    model = context.model or context.module
    if reason := failure(model, small):
        return (), f"it can't run at {here}: {reason}"
    if isinstance(model, GraphModule) and (side := _number_of_size(model, whole)):
        return (), (
            f"its graph holds {side}, which its input, {'x'.join(map(str, whole))}, may have set; "
            "without its class (`--model`) that can't be told"
        )
    edit = Resize(_names(context, ids), size)
    try:
        edits = (*_constants(model, context.inputs, small), edit)
        resized = apply(clone(context.module), edits)
    except (CaptureError, EditError) as error:
        return (), f"it can't run at {here}: {error}"
    for old, new in zip(output_shapes(context.module), output_shapes(resized), strict=True):
        if old != new:
            return (), f"at {here} its output {old} would become {new}"
    return edits, ""


def _constants(model: nn.Module, whole: Inputs, small: Inputs) -> tuple[Edit, ...]:
    """A graph has all its numbers written out: there is no class to ask for others."""
    if isinstance(model, GraphModule):
        return ()
    return sizes_between(capture(model, whole), capture(model, small))


def _number_of_size(module: GraphModule, whole: tuple[int, ...]) -> str:
    """The first number that may be computed from the size, with its node: a side, a fraction of
    it that strides leave, a count of places."""
    sizes = set(whole)
    for scale in (2**n for n in range(max(whole).bit_length())):
        for sides in ([s // scale for s in whole], [-(-s // scale) for s in whole]):
            sizes |= {*sides, prod(sides)}
    for node in module.graph.nodes:
        if node.op == "call_function" and not op_name(node.target).startswith(OWN_NUMBERS):
            numbers = tree_leaves((node.args, node.kwargs))
            candidates = (n for n in numbers if type(n) is int and n >= LEAST and n in sizes)
            if (number := next(candidates, None)) is not None:
                return f"{number} (`{node.name}`)"
    return ""


def _resizable(inputs: Inputs) -> list[Tensor]:
    """The images; without any, the sequences."""
    images = [x for x in inputs if x.dim() == 4 and x.is_floating_point()]
    return images or [x for x in inputs if x.dim() == 2 and not x.is_floating_point()]


def _wanted(whole: tuple[int, ...], settings: InputSize) -> tuple[int, ...]:
    """One number is the shorter side, whose ratio the other one keeps."""
    if settings.ratio is not None:
        return tuple(max(1, round(settings.ratio * side)) for side in whole)
    if isinstance(settings.size, tuple):
        return settings.size
    assert settings.size is not None  # one of the two is set (its settings say so)
    return tuple(max(1, round(settings.size * side / min(whole))) for side in whole)


def _names(context: Context, ids: set[int]) -> tuple[str, ...]:
    nodes = [n.name for n in context.module.graph.nodes if n.op == "placeholder"]
    values = context.inputs.in_order(nodes)
    return tuple(n for n, x in zip(nodes, values, strict=True) if id(x) in ids)


ADJUSTER = Adjuster("input_size", "make what comes in smaller first, and run at that size", plan)
