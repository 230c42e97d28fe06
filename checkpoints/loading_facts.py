"""Facts that transformers reports of a load: missing, unexpected and mismatched weights."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor, nn

from ..core.errors import CheckpointError
from ..core.json_values import JsonObject
from .detect import INDEX
from .differences import Differences
from .leftovers import harmless, notes_on, ticked, without_ignored


def notes_on_loading(
    config: Path, model: nn.Module, facts: JsonObject, ignore: Sequence[str]
) -> list[str]:
    """Sentences on the weights that were left out.

    Raises CheckpointError where the model has weights at random, or lacks some that are there:
    the library goes on with either.
    """
    missing, surplus, misshapen = (
        sorted(_name(key) for key in facts.get(f"{kind}_keys") or ())
        for kind in ("missing", "unexpected", "mismatched")
    )
    kept, notes = without_ignored(dict.fromkeys(surplus, torch.empty(0)), ignore)
    left: dict[str, list[str]] = {}
    for name in kept:
        if why := harmless(name):
            left.setdefault(why, []).append(name)
    unexpected = [name for name in kept if not harmless(name)]
    misshapen = [name for name in misshapen if name not in missing]
    counts = {
        "at random because the weights lack them": missing,
        "of another shape": misshapen,
        "only in the weights": unexpected,
    }
    if missing or misshapen or unexpected:
        parts = ", ".join(f"{len(n)} {what} ({ticked(n)})" for what, n in counts.items() if n)
        cause = _cause(config, model, missing, unexpected, misshapen)
        raise CheckpointError(
            f"`{config.parent}` does not fit its `{config.name}`, which makes a "
            f"`{type(model).__name__}`: tensors {parts}; likely {cause}."
        )
    return [*notes, *notes_on(left)]


def headless(model: nn.Module, file: Path) -> list[str]:
    """A note where all names stand below the part that a model with a head has this model as.

    A head tied to the embedding has no weights of its own, so none is left over.
    """
    prefix = f"{getattr(model, 'base_model_prefix', '')}."
    names = _names_in(file)
    inside = names and prefix != "." and all(name.startswith(prefix) for name in names)
    if not inside or any(name.startswith(prefix) for name in model.state_dict()):
        return []
    return [
        f"the weights were saved from a model with a head (their names start with `{prefix}`), "
        f"which `{type(model).__name__}` lacks; `architectures` in the configuration names it"
    ]


def _names_in(file: Path) -> list[str]:
    if file.name.endswith(INDEX):
        return list(json.loads(file.read_text(encoding="utf-8")).get("weight_map", {}))
    if file.suffix != ".safetensors":
        return []
    with safe_open(file, framework="pt") as weights:
        return list(weights.keys())


def _name(key: object) -> str:
    return str(key[0]) if isinstance(key, (tuple, list)) and key else str(key)


def _cause(
    config: Path, model: nn.Module, missing: list[str], unexpected: list[str], misshapen: list[str]
) -> str:
    wanted = {k: v for k, v in model.state_dict().items() if isinstance(v, Tensor)}
    stored = {k: v for k, v in wanted.items() if k not in missing}
    stored |= dict.fromkeys(unexpected, torch.empty(0))
    differences = Differences(stored, wanted, tuple(missing), tuple(unexpected), ())
    lists = differences.blocks(empty=True)
    if lists and not misshapen and (not missing or not unexpected):
        side = "fewer" if missing else "more"
        return (
            f"`{config.name}` gives another number of layers: the weights have {side} of "
            f"`{lists[0]}` than the model"
        )
    if misshapen:
        return f"`{config.name}` gives other sizes than the weights have, or is another model's"
    if unexpected and not missing:
        return f"{_architecture(config, model)}; {differences.surplus()}"
    return _architecture(config, model)


def _architecture(config: Path, model: nn.Module) -> str:
    named = json.loads(config.read_text(encoding="utf-8")).get("architectures")
    first = named[0] if isinstance(named, list) and named else None
    if first != type(model).__name__:
        why = "is missing" if first is None else f"names `{first}`, which is not known here"
        return (
            f"`architectures` in `{config.name}` {why}, so the model is built without the head "
            "that it was saved with"
        )
    return f"`architectures` in `{config.name}` is another model's"
