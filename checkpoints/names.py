"""Names of tensors in a file, brought to those of the model: prefixes of wrappers come off."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

from torch import Tensor

from ..core.errors import CheckpointError

# What torch.compile, FSDP and activation checkpointing put anywhere into a name.
INSIDE = ("_orig_mod.", "_fsdp_wrapped_module.", "_checkpoint_wrapped_module.")
USUAL = ("module.", "model.")  # taken off without a word
COUNTERS = ("n_averaged",)  # of averaged models; no weight


def matched(
    path: Path, weights: Mapping[str, Tensor], wanted: Collection[str]
) -> tuple[dict[str, Tensor], list[str]]:
    """`weights` under the model's names as far as a prefix is all that differs, and what was done.

    Raises CheckpointError where the file holds several models that would fit.
    """
    if all(k in weights for k in wanted):
        return dict(weights), []
    weights = _without_wrappers(weights, wanted)
    fits = {p: sum(p + k in weights for k in wanted) for p in _prefixes(weights, wanted)}
    best = max(fits.values(), default=0)
    if best <= sum(k in weights for k in wanted):
        return _with_prefix(weights, wanted), []
    prefix, *others = [p for p, count in fits.items() if count == best]
    if others:
        raise CheckpointError(
            f"`{path}` holds several models that fit: {_ticked([prefix, *others])} are prefixes of "
            "their names; save the weights of one of them alone."
        )
    under = {k.removeprefix(prefix): v for k, v in weights.items() if k.startswith(prefix)}
    rest = [k for k in weights if not k.startswith(prefix) and k not in COUNTERS]
    if rest and best < sum(1 for k in wanted if not k.endswith("num_batches_tracked")):
        return dict(weights), []  # not the whole model is under it, so nothing is left out either
    notes = [] if prefix in USUAL else [f"the prefix `{prefix}` of the file's names was taken off"]
    if rest:
        notes.append(f"{len(rest)} tensors of the file are not the model's: {_ticked(rest)}")
    return under, notes


def _without_wrappers(
    weights: Mapping[str, Tensor], wanted: Collection[str]
) -> Mapping[str, Tensor]:
    for part in INSIDE:
        if not any(part in k for k in wanted):
            weights = {k.replace(part, ""): v for k, v in weights.items()}
    return weights


def _prefixes(weights: Mapping[str, Tensor], wanted: Collection[str]) -> list[str]:
    """What stands before a name of the model in the file, in the file's order."""
    some = list(wanted)[:: max(1, len(wanted) // 4)][:6]
    ends = tuple(f".{k}" for k in some)
    found = [k for k in weights if k.endswith(ends)]
    return list(dict.fromkeys(k[: -len(w)] for k in found for w in some if k.endswith(f".{w}")))


def _with_prefix(weights: Mapping[str, Tensor], wanted: Collection[str]) -> dict[str, Tensor]:
    """The other way round: the model wraps what the file holds."""
    first = next(iter(weights), "")
    for prefix in (k[: -len(first)] for k in wanted if k.endswith(f".{first}")):
        if all(prefix + k in wanted for k in weights):
            return {prefix + k: v for k, v in weights.items()}
    return dict(weights)


def _ticked(names: Collection[str]) -> str:
    return ", ".join(f"`{n}`" for n in list(names)[:3]) + (", ..." if len(names) > 3 else "")
