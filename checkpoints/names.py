"""Names of tensors in a file, brought to those of the model: prefixes of wrappers come off."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from pathlib import Path

from torch import Tensor

from ..core.errors import CheckpointError
from .leftovers import is_shadow, ticked

# What torch.compile, FSDP and activation checkpointing put anywhere into a name.
INSIDE = ("_orig_mod.", "_fsdp_wrapped_module.", "_checkpoint_wrapped_module.")
USUAL = ("module.", "model.")  # taken off without a word


def matched(
    path: Path, weights: Mapping[str, Tensor], wanted: Collection[str]
) -> tuple[dict[str, Tensor], dict[str, Tensor], list[str]]:
    """Tensors that have the model's names but for a prefix, the rest, and what was done.

    Raises CheckpointError where the file holds several models that would fit.
    """
    if all(k in weights for k in wanted):
        return dict(weights), {}, []
    fits = {p: sum(p + k in weights for k in wanted) for p in _prefixes(weights, wanted)}
    best = max(fits.values(), default=0)
    if best <= sum(k in weights for k in wanted):
        return _with_prefix(weights, wanted), {}, []
    several = [p for p, count in fits.items() if count == best]
    # Averaged copies are used where they are named by themselves; beside weights they are not.
    prefix, *others = [p for p in several if not is_shadow(p)] or several
    if others:
        raise CheckpointError(
            f"`{path}` holds several models that fit: {ticked([prefix, *others])} are prefixes of "
            "their names; save the weights of only one of them, or leave the others out with "
            f"`--ignore '^{re.escape(others[0])}'`."
        )
    under = {k.removeprefix(prefix): v for k, v in weights.items() if k.startswith(prefix)}
    rest = {k: v for k, v in weights.items() if not k.startswith(prefix)}
    notes = [] if prefix in USUAL else [f"the prefix `{prefix}` of the file's names was taken off"]
    return under, rest, notes


def without_wrappers(weights: Mapping[str, Tensor], wanted: Collection[str]) -> dict[str, Tensor]:
    for part in INSIDE:
        if not any(part in k for k in wanted):
            weights = {k.replace(part, ""): v for k, v in weights.items()}
    return dict(weights)


def _prefixes(weights: Mapping[str, Tensor], wanted: Collection[str]) -> list[str]:
    """Prefixes of the model's names in the file, in the file's order."""
    some = list(wanted)[:: max(1, len(wanted) // 4)][:6]
    ends = tuple(f".{k}" for k in some)
    matching = [k for k in weights if k.endswith(ends)]
    return list(dict.fromkeys(k[: -len(w)] for k in matching for w in some if k.endswith(f".{w}")))


def _with_prefix(weights: Mapping[str, Tensor], wanted: Collection[str]) -> dict[str, Tensor]:
    """The other way round: the model wraps what the file holds."""
    first = next(iter(weights), "")
    for prefix in (k[: -len(first)] for k in wanted if k.endswith(f".{first}")):
        if all(prefix + k in wanted for k in weights):
            return {prefix + k: v for k, v in weights.items()}
    return dict(weights)
