"""Weights that a class computes from halves (pruning masks, norms, parametrizations) made plain.

The artifact holds such a weight folded into one constant, under the name of one of its halves.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor, nn
from torch.nn.utils import parametrize, prune
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

ENDINGS = ("_orig", "_v", "_g", "_mask", "_u")  # the one that has the weight's shape first
HOOKS = (prune.BasePruningMethod, WeightNorm, SpectralNorm)


def plain_weights(base: nn.Module, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """`tensors` by the names of plain weights where it holds them folded. Changes `base`.

    A weight whose halves are all held stays in halves.
    """
    renamed = dict(tensors)
    for path, module in list(base.named_modules()):
        start = f"{path}." if path else ""
        split = {leaf: list(_halves(module, leaf)) for leaf in _split(module)}
        for leaf, halves in split.items():
            there = [start + half for half in halves if start + half in tensors]
            # Folding a batch norm names the new bias after what it takes for the weight.
            bias = [f"{name}_bias" for name in there if f"{name}_bias" in tensors]
            split_there = not bias and _in_halves(halves, start, tensors)
            if not there or split_there or leaf not in _split(module):
                continue
            _make_plain(module, leaf, halves)
            renamed = {k: v for k, v in renamed.items() if k not in there}
            renamed[start + leaf] = tensors[there[0]]
            if bias:
                if "bias" in split:
                    _make_plain(module, "bias", split["bias"])
                renamed[f"{start}bias"] = tensors[bias[0]]
    return renamed


def _split(module: nn.Module) -> list[str]:
    """Weights of `module` that it computes from halves, `weight` first."""
    return sorted({*_parametrized(module), *_hooked(module)}, reverse=True)


def _parametrized(module: nn.Module) -> list[str]:
    return list(module.parametrizations) if parametrize.is_parametrized(module) else []  # type: ignore[arg-type]


def _hooked(module: nn.Module) -> Iterator[str]:
    for hook in module._forward_pre_hooks.values():
        if isinstance(hook, HOOKS):
            yield str(getattr(hook, "_tensor_name", "") or getattr(hook, "name", ""))


def _halves(module: nn.Module, leaf: str) -> Iterator[str]:
    """Names of what `leaf` is computed from, relative to `module`."""
    if leaf in _parametrized(module):
        kept: Any = module.parametrizations
        names = [n for n, _ in (*kept[leaf].named_parameters(), *kept[leaf].named_buffers())]
        # `original1` is a weight norm's direction, `original` any other's whole weight.
        names.sort(key=lambda n: (n != "original1", not n.startswith("original"), n))
        yield from (f"parametrizations.{leaf}.{name}" for name in names)
        return
    tables = {**module._parameters, **module._buffers}
    yield from (leaf + ending for ending in ENDINGS if tables.get(leaf + ending) is not None)


def _in_halves(halves: list[str], start: str, tensors: Mapping[str, Tensor]) -> bool:
    """Does the artifact compute the weight too? A mask may be left over that it does not read."""
    entries = [tensors.get(start + half) for half in halves]
    shapes = {x.shape for x in entries if x is not None}
    return all(x is not None for x in entries) and (
        not halves[-1].endswith("_mask") or len(shapes) == 1
    )


def _make_plain(module: nn.Module, leaf: str, halves: list[str]) -> None:
    if leaf in _parametrized(module):
        parametrize.remove_parametrizations(module, leaf, leave_parametrized=True)
        return
    value = getattr(module, leaf)
    for table in (
        module._forward_pre_hooks,
        module._load_state_dict_pre_hooks,
        module._state_dict_hooks,
    ):
        for key in [k for k, hook in table.items() if _of(hook, leaf)]:
            del table[key]
    for half in halves:
        delattr(module, half)
    if leaf in vars(module):
        delattr(module, leaf)
    module.register_parameter(leaf, nn.Parameter(value.detach().clone()))


def _of(hook: object, leaf: str) -> bool:
    hook = getattr(hook, "hook", hook)  # torch wraps those that load
    hook = getattr(hook, "fn", hook)
    return isinstance(hook, HOOKS) and leaf in (
        getattr(hook, "_tensor_name", None), getattr(hook, "name", None),
    )  # fmt: skip
