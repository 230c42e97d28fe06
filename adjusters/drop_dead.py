"""Drop units that change nothing: no layer reads them, or they are zero whatever comes in.

Masks of `torch.nn.utils.prune` and batch-norm scales driven to zero leave such units behind.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor
from torch.fx import GraphModule

from ..checkpoints.samples import draw_inputs, specs_of
from ..configs.settings import DropDead
from ..core.model_io import Inputs, leaves, plain
from ..core.records import LeftAlone
from ..graph.analysis.constancy import UnitMask, varying, zero_slices
from ..graph.analysis.groups import Group, Member, keep_units
from ..graph.capture import clone, tensor_at
from ..graph.edits.apply import Edit, apply
from ..graph.interpreter import Recorder
from ..graph.layers import Layer, layers_of
from .plan import Adjuster, Context, Plan

Reader: TypeAlias = tuple[Layer, Member]
DRAWN = 3  # random inputs beside the example
CONSTANT = "{} units are the same for every input but not zero: {}"
UNLIKE = "dead units were found, but the outputs differ without them"


@dataclass
class Dead:
    """Units by group: `unread` by any layer, `silent`: always zero, `constant`: always the same."""

    unread: dict[str, set[int]] = field(default_factory=dict)
    silent: dict[str, set[int]] = field(default_factory=dict)
    constant: dict[str, set[int]] = field(default_factory=dict)


def plan(context: Context, settings: DropDead) -> Plan:
    """Repeats itself: without a unit, what made only that unit is read by no one any more."""
    del settings
    edits: list[Edit] = []
    left: tuple[LeftAlone, ...] = ()
    while _has_zero_slices(context.module):
        dead = _dead(context)
        drops, left = _checked(context, dead)
        if not drops:
            break
        edits += drops
        context = replace(context, module=apply(clone(context.module), drops))
    return Plan(tuple(edits), left)


def _has_zero_slices(module: GraphModule) -> bool:
    """Almost every model has none, and is spared the analysis."""
    norms = (n for n in module.graph.nodes if n.target is torch.ops.aten.batch_norm.default)
    scales = (tensor_at(module, str(n.args[1].target)) for n in norms if n.args[1] is not None)
    weights = [p.detach().ne(0) for p in module.parameters() if p.dim() > 1]
    slices = (w.transpose(0, axis).flatten(1).any(1) for w in weights for axis in (0, 1))
    return any(not bool(used.all()) for used in (*slices, *scales))


def _dead(context: Context) -> Dead:
    dead, module = Dead(), context.module
    layers = list(layers_of(module))
    fixed: list[tuple[Group, UnitMask, list[Reader]]] = []
    for group in context.analysis.prunable:
        readers = _readers(module, group, layers)
        if not readers:
            continue
        dead.unread[group.name] = _numbers(_unread(module, group, layers))
        known = varying(module, group)
        if all(layer.source.name in known for layer, _ in readers):
            moving = [known[layer.source.name] for layer, _ in readers]
            fixed.append((group, ~np.logical_or.reduce(moving), readers))
    fixed = [row for row in fixed if row[1].any()]
    used = _used(context, {layer for _, _, readers in fixed for layer, _ in readers})
    for group, units, readers in fixed:
        zero = _always_zero(used, readers)
        dead.silent[group.name] = _numbers(units & zero)
        dead.constant[group.name] = _numbers(units & ~zero) - dead.unread[group.name]
    return dead


def _numbers(units: UnitMask) -> set[int]:
    return set(np.flatnonzero(units).tolist())


def _readers(module: GraphModule, group: Group, layers: list[Layer]) -> list[Reader]:
    """Uses of a weight whose columns are the group's units."""
    columns = {id(tensor_at(module, m.param)): m for m in group.members if m.dim == 1}
    pairs = ((layer, columns.get(id(tensor_at(module, layer.weight)))) for layer in layers)
    return [(layer, member) for layer, member in pairs if member is not None]


def _unread(module: GraphModule, group: Group, layers: list[Layer]) -> UnitMask:
    """Zero in every matrix but those whose rows make the units: other readers may not be layers."""
    weights = {id(tensor_at(module, layer.weight)) for layer in layers}
    read = [
        zero_slices(module, m)
        for m in group.members
        if (tensor := tensor_at(module, m.param)).dim() > 1
        and not (m.dim == 0 and id(tensor) in weights)
    ]
    unread: UnitMask = np.logical_and.reduce(read)
    return unread


def _used(context: Context, readers: set[Layer]) -> dict[Layer, UnitMask]:
    """By layer: which columns of its weight meet anything but zero on the example inputs."""
    watch = Recorder(context.module, {layer.source.name for layer in readers}, copy=True)
    if readers:
        with torch.no_grad():
            watch.of(context.inputs)
    used = {}
    for layer in readers:
        value = watch.values[layer.source.name].movedim(layer.channel_axis, 0).flatten(1)
        used[layer] = value.ne(0).any(1).reshape(layer.groups, -1).any(0).cpu().numpy()
    return used


def _always_zero(used: Mapping[Layer, UnitMask], readers: list[Reader]) -> UnitMask:
    """Of units that depend on no input, so that one input tells."""
    unread = [[not used[la][list(unit)].any() for unit in m.indices] for la, m in readers]
    zero: UnitMask = np.logical_and.reduce(unread)
    return zero


def _checked(context: Context, dead: Dead) -> tuple[list[Edit], tuple[LeftAlone, ...]]:
    """Edits without which the outputs stay, and what is left: all of it, or what no one reads."""
    left = tuple(
        LeftAlone(name, CONSTANT.format(len(units), "their share is not folded into biases yet"))
        for name, units in dead.constant.items()
        if units
    )
    both = {n: units | dead.silent.get(n, set()) for n, units in dead.unread.items()}
    for chosen in (both, dead.unread):
        edits = keep_units(context.analysis, _all_but_one(context, chosen))
        if edits and _same(context, apply(clone(context.module), edits)):
            return edits, left
    refused = (LeftAlone(name, UNLIKE) for name, units in both.items() if units)
    return [], (*left, *refused)


def _all_but_one(context: Context, dead: dict[str, set[int]]) -> dict[str, list[int]]:
    sizes = {g.name: g.size for g in context.analysis.prunable}
    return {n: sorted(units)[len(units) == sizes[n] :] for n, units in dead.items() if units}


def _same(context: Context, changed: GraphModule) -> bool:
    """Equal to within rounding on the example inputs and on drawn ones."""
    with torch.no_grad():
        return all(
            _close(got, want)
            for inputs in _inputs(context)
            for got, want in zip(
                leaves(plain(inputs.call(changed))),
                leaves(plain(inputs.call(context.module))),
                strict=True,
            )
        )


def _inputs(context: Context) -> Iterator[Inputs]:
    yield context.inputs
    for number in range(DRAWN):
        drawn = draw_inputs(specs_of(context.inputs), context.seed + number)
        yield drawn.map(lambda x: x.to(context.device))


def _close(got: Tensor, want: Tensor) -> bool:
    if got.shape != want.shape or not want.is_floating_point() or not want.numel():
        return got.shape == want.shape and bool((got == want).all())
    # Fewer terms are summed in another order, which is worth some last bits.
    return bool((got - want).abs().max() <= torch.finfo(want.dtype).eps ** 0.5 * want.abs().max())


ADJUSTER = Adjuster("drop_dead", "drop units that no layer reads or that are always zero", plan)
