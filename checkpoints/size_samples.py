"""Samples of outputs at other sizes of what varies, beside the one at the size that is measured."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from ..core.json_values import JsonObject
from ..core.model_io import plain
from ..profiling.closeness import TOLERANCE
from ..profiling.state import kept_state
from .samples import draw_inputs, other_sizes, reproduces, sample_of

SIZES = "sizes"  # in a manifest's sample


def size_samples(
    run: Callable[..., Any], specs: list[JsonObject], seed: int
) -> dict[str, list[list[float]]]:
    """The part of a manifest's sample about other sizes; empty where nothing varies."""
    rows = [_sample(run, row, seed).tolist() for row in other_sizes(specs)]
    return {SIZES: rows} if rows else {}


def reproduces_sizes(
    run: Callable[..., Any], manifest: JsonObject, tolerance: float = TOLERANCE
) -> bool:
    """True if `run` gives what the manifest holds at other sizes."""
    sample, specs = manifest["sample"], [dict(spec) for spec in manifest["inputs"]]
    pairs = zip(other_sizes(specs), sample.get(SIZES, ()), strict=False)
    return all(
        reproduces(_sample(run, row, int(sample["seed"])), torch.tensor(wanted), tolerance)
        for row, wanted in pairs
    )


def _sample(run: Callable[..., Any], specs: list[JsonObject], seed: int) -> torch.Tensor:
    with torch.no_grad(), kept_state(run):
        return sample_of(plain(draw_inputs(specs, seed).call(run)))
