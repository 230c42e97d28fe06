"""State dicts: checked, and put into the model."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from ..core.errors import CheckpointError
from .differences import Differences
from .kinds import check_kinds
from .leftovers import notes_on, surplus_by_reason, without_ignored
from .names import matched, without_wrappers
from .reparametrized import put_together
from .tensors import unfit
from .wrappings import state_dicts_in


def state_dict_of(
    path: Path, content: object, ignore: Sequence[str] = ()
) -> tuple[dict[str, Tensor], list[str]]:
    """The finite tensors in `content` by name, and what was left out of them.

    `ignore`: regular expressions; names that one is found in are left out. Raises CheckpointError
    where there is no tensor.
    """
    if not isinstance(content, Mapping):
        raise CheckpointError(f"`{path}` holds {type(content).__name__}, not a state dict.")
    weights = {str(k): v for k, v in content.items() if isinstance(v, Tensor)}
    if not weights and (several := state_dicts_in(content)):
        raise CheckpointError(
            f"`{path}` holds several state dicts: {_some(several)}; save only the one to tune."
        )
    if not weights:
        keys = f"its keys are {_some(list(content))}" if content else "it is an empty state dict"
        raise CheckpointError(f"`{path}` holds no tensors; {keys}.")
    weights, notes = without_ignored(weights, ignore)
    _check_plain(path, weights)
    check_finite(path, weights)
    return weights, notes


def fill(path: Path, module: nn.Module, weights: Mapping[str, Tensor]) -> list[str]:
    """Load `weights` into `module`, every key and shape matched, and say what was left out.

    Raises CheckpointError with a table of the differences where they do not fit.
    """
    wanted = {k: v for k, v in module.state_dict().items() if isinstance(v, Tensor)}
    if lazy := next((k for k, v in wanted.items() if is_lazy(v)), None):
        raise CheckpointError(
            f"`{type(module).__name__}` has a lazy layer: `{lazy}` has no size yet; call the model "
            "once on an example in the factory before it is returned."
        )
    whole, done = put_together(path, without_wrappers(weights, wanted), module)
    renamed, rest, more = matched(path, whole, wanted)
    surplus = {**rest, **{k: v for k, v in renamed.items() if k not in wanted}}
    left = surplus_by_reason(surplus, wanted, module)
    unexpected = [k for k in surplus if not any(k in names for names in left.values())]
    used = {k: v for k, v in renamed.items() if k in wanted}
    differences = Differences(
        {**surplus, **used},
        wanted,
        tuple(k for k in wanted if k not in used and not _optional(k, wanted, used)),
        tuple(unexpected),
        tuple(k for k in wanted if k in used and used[k].shape != wanted[k].shape),
    )
    if differences:
        raise CheckpointError(differences.text(path))
    check_kinds(path, used, wanted)
    _check_ties(path, used, wanted)
    module.load_state_dict(used, strict=False)  # what may be missing was decided above
    extra = [k for k, v in module.state_dict().items() if not isinstance(v, Tensor)]
    said = [*done, *more, *notes_on(left)]
    return [*said, f"no tensors, so not read: {_some(extra)}"] if extra else said


def _check_ties(path: Path, used: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> None:
    """Of two names of one tensor the last would win, whatever the first was trained to be."""
    first: dict[tuple[int, torch.Size, tuple[int, ...]], str] = {}
    for name in used:
        own = wanted[name]
        key = (own.data_ptr(), own.shape, own.stride())
        other = first.setdefault(key, name) if own.numel() and own.device.type != "meta" else name
        if other != name and not torch.equal(used[other], used[name]):
            raise CheckpointError(
                f"`{path}` holds different values for `{other}` and `{name}`, which are one tensor "
                "in the model; build it without tying them, or leave one of the two out with "
                f"`--ignore '^{re.escape(name)}$'`."
            )


def _check_plain(path: Path, weights: Mapping[str, Tensor]) -> None:
    for name, tensor in weights.items():
        if kind := unfit(tensor):
            raise CheckpointError(
                f"`{path}`: `{name}` {kind}; only dense tensors of numbers can be tuned, so save "
                "the model's plain weights."
            )


def check_finite(path: Path, weights: Mapping[str, object]) -> None:
    """Raises CheckpointError naming the first tensor that holds NaN or infinity."""
    tensors = {k: v for k, v in weights.items() if isinstance(v, Tensor)}
    bad = {k: n for k, v in tensors.items() if (n := _not_finite(v))}
    if bad:
        first = next(iter(bad))
        number = "1 tensor" if len(bad) == 1 else f"{len(bad)} tensors"
        raise CheckpointError(
            f"`{path}` holds NaN or infinity in {number}, first `{first}` ({bad[first]} of "
            f"{tensors[first].numel()} values); a model that diverged can't be tuned."
        )


def _not_finite(tensor: Tensor) -> int:
    if not (tensor.is_floating_point() or tensor.is_complex()):
        return 0
    if tensor.is_floating_point() and tensor.element_size() == 1:
        tensor = tensor.float()  # torch has no isfinite for float8
    return int((~torch.isfinite(tensor)).sum())


def _optional(key: str, wanted: Mapping[str, Tensor], weights: Mapping[str, Tensor]) -> bool:
    """May the file lack `key`? Counters of old torch, and the second name of a tied weight."""
    if key.endswith("num_batches_tracked"):
        return True
    tensor = wanted[key]
    return tensor.numel() > 0 and any(
        other in weights and w.data_ptr() == tensor.data_ptr() and w.shape == tensor.shape
        for other, w in wanted.items()
        if other != key
    )


def _some(names: Sequence[object]) -> str:
    return ", ".join(f"`{n}`" for n in names[:3]) + (", ..." if len(names) > 3 else "")
