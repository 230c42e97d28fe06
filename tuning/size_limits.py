"""The sizes at which the original runs: a table that ends leaves no guard in a capture."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from math import prod

import torch
from torch import nn

from ..checkpoints.samples import draw_inputs, specs_of
from ..core.json_values import JsonObject
from ..core.model_io import Inputs
from ..core.span import Span
from ..profiling.state import kept_state
from .trial_copy import trial_copy

GROWN = 8  # times the values of one call: larger ends are not tried

Place = tuple[int, int]  # of an input, and its axis


def where_it_runs(model: nn.Module, inputs: Inputs, seed: int) -> Inputs:
    """`inputs` with the ends of what varies where the model still runs, tried one by one."""
    spans, model = [dict(row) for row in inputs.spans], trial_copy(model, str(inputs[0].device))
    for places in _together(inputs):
        place, axis = places[0]
        size, span = int(inputs[place].shape[axis]), spans[place][axis]
        low, high = _ends(inputs, places, size, span)

        def runs(at: int, places: list[Place] = places) -> bool:
            return _runs(model, _sized(inputs, places, at), seed)

        least = _last(size, low, span.multiple, runs)
        most = _last(size, high, span.multiple, runs)
        for place, axis in places:
            now = spans[place][axis]
            spans[place][axis] = replace(
                now,
                low=now.low if least == low else least,
                high=now.high if most == high else most,
            )
    return replace(inputs, varies=tuple(spans))


def _together(inputs: Inputs) -> list[list[Place]]:
    """Axes that have one size, each of the others by itself."""
    groups: dict[object, list[Place]] = {}
    for place, row in enumerate(inputs.spans):
        for axis, span in row.items():
            groups.setdefault(span.tied or (place, axis), []).append((place, axis))
    return list(groups.values())


def _ends(inputs: Inputs, places: list[Place], size: int, span: Span) -> tuple[int, int]:
    low, high = span.ends(size)
    whole = prod(inputs[places[0][0]].shape)
    if span.high is not None and whole // size * span.high <= GROWN * whole:
        high = span.high // span.multiple * span.multiple
    return low, high


def _last(good: int, end: int, step: int, runs: Callable[[int], bool]) -> int:
    """The last size on the way from `good` to `end` at which it runs."""
    if end == good or runs(end):
        return end
    bad = end
    while abs(bad - good) > step:
        middle = good + (bad - good) // step // 2 * step
        if middle == good:
            middle += step if bad > good else -step
        good, bad = (middle, bad) if runs(middle) else (good, middle)
    return good


def _sized(inputs: Inputs, places: list[Place], size: int) -> list[JsonObject]:
    specs = specs_of(replace(inputs, varies=()))
    for place, axis in places:
        specs[place]["shape"][axis] = size
    return specs


def _runs(model: nn.Module, specs: list[JsonObject], seed: int) -> bool:
    try:
        with torch.no_grad(), kept_state(model):
            draw_inputs(specs, seed).call(model)
    except Exception:  # of the model's own code
        return False
    return True
