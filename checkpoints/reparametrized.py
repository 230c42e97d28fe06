"""Weights in a file that torch's own utilities split in two, put together for a class without them.

`torch.nn.utils.prune` (`weight_orig`, `weight_mask`), `weight_norm` (`weight_g`, `weight_v`),
`spectral_norm` (`weight_orig`, `weight_u`, `weight_v`), and the same as parametrizations.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.conv import _ConvTransposeNd

from ..core.errors import CheckpointError

Tensors = Mapping[str, Tensor]
INSIDE = "parametrizations"
CLEAR = 0.9


@dataclass(frozen=True)
class Form:
    """`parts` are what a weight's halves are called, beside where the weight was or below it."""

    what: str
    parts: tuple[str, ...]
    inside: bool = False

    def halves(self, name: str) -> list[str]:
        owner, dot, leaf = name.rpartition(".")
        start = f"{owner}{dot}{INSIDE}.{leaf}." if self.inside else name
        return [f"{start}{part}" for part in self.parts]

    def whole(self, half: str) -> str:
        """The weight whose first half that is; empty where it is none."""
        if not half.endswith(self.parts[0]):
            return ""
        start = half.removesuffix(self.parts[0])
        if not self.inside:
            return start if start.rpartition(".")[2] else ""
        above, _, leaf = start.removesuffix(".").rpartition(".")
        owner, _, last = above.rpartition(".")
        return f"{owner}.{leaf}".removeprefix(".") if start.endswith(".") and last == INSIDE else ""


MASK, WEIGHT_NORM, SPECTRAL_NORM = "pruning masks", "weight norms", "spectral norms"
# Those of three halves first: they share names with those of two.
FORMS = (
    Form(SPECTRAL_NORM, ("_orig", "_u", "_v")),
    Form(SPECTRAL_NORM, ("original", "0._u", "0._v"), inside=True),
    Form(MASK, ("_orig", "_mask")),
    Form(WEIGHT_NORM, ("_v", "_g")),
    Form(WEIGHT_NORM, ("original1", "original0"), inside=True),
)


def put_together(
    path: Path, weights: Tensors, module: nn.Module
) -> tuple[dict[str, Tensor], list[str]]:
    """`weights` with one tensor for the halves of each that `module` has whole, and what was done.

    Raises CheckpointError where the halves do not fit each other.
    """
    merged, notes = dict(weights), []
    model = _Names(module)
    for form in FORMS:
        wholes: dict[str, tuple[str, Tensor]] = {}
        gone: set[str] = set()
        for first in merged:
            name = form.whole(first)
            halves = form.halves(name) if name else []
            if not name or name in merged or not all(half in merged for half in halves):
                continue
            if model.has_whole(name, first):
                whole = _whole(form.what, [merged[half] for half in halves], model.owner(name))
                wholes[first] = name, _checked(path, form, name, whole)
                gone.update(halves[1:])
        merged = dict(wholes.get(k, (k, v)) for k, v in merged.items() if k not in gone)
        if wholes:
            notes.append(_note(form.what, [name for name, _ in wholes.values()]))
    return merged, notes


def split_in(names: Iterable[str]) -> str:
    """A weight of which there are halves among `names`; empty where there is none."""
    present = set(names)
    for form in FORMS:
        for first in sorted(present):
            name = form.whole(first)
            if name and all(half in present for half in form.halves(name)):
                return name
    inside = next((n for n in sorted(present) if f".{INSIDE}." in f".{n}"), "")
    before, _, after = inside.partition(f"{INSIDE}.")
    return before + after.partition(".")[0] if inside else ""


class _Names:
    """The model's names; a file's may stand behind a prefix, or the model's may."""

    def __init__(self, module: nn.Module) -> None:
        self.module, self.names = module, set(module.state_dict())
        self.ends = {end: name for name in self.names for end in _ends(name)}

    def has_whole(self, name: str, half: str) -> bool:
        if name in self.names or half in self.names:
            return name in self.names
        return bool(self._own(name)) and not self._own(half)

    def owner(self, name: str) -> nn.Module:
        return self.module.get_submodule(self._own(name).rpartition(".")[0])

    def _own(self, name: str) -> str:
        if name in self.names:
            return name
        return self.ends.get(name) or next((e for e in _ends(name) if e in self.names), "")


def _ends(name: str) -> list[str]:
    parts = name.split(".")
    return [".".join(parts[i:]) for i in range(1, len(parts))]


def _whole(what: str, halves: Sequence[Tensor], owner: nn.Module) -> Tensor | None:
    first, second = halves[:2]
    if what == MASK:
        return (first * second).to(first.dtype) if first.shape == second.shape else None
    if what == WEIGHT_NORM:
        return _scaled(first, second)
    return _spectral(first, second, halves[2], owner)


def _scaled(direction: Tensor, length: Tensor) -> Tensor | None:
    """Weight norm (Salimans and Kingma, 2016): each slice of `direction` made `length` long."""
    if length.dim() == 0:
        whole: Tensor = direction * (length / direction.norm())
        return whole
    fits = length.dim() == direction.dim() and all(
        a in (1, b) for a, b in zip(length.shape, direction.shape, strict=True)
    )
    if not fits:
        return None
    dims = [d for d, size in enumerate(length.shape) if size == 1]
    norms = torch.linalg.vector_norm(direction, dim=dims, keepdim=True) if dims else direction.abs()
    scaled: Tensor = direction * (length / norms)
    return scaled


def _spectral(weight: Tensor, left: Tensor, right: Tensor, owner: nn.Module) -> Tensor | None:
    """Spectral norm (Miyato et al., 2018): divided by the largest singular value, as stored.

    Which dimension the matrix's rows are is not in the file: what torch takes by itself, unless
    the vectors fit another one clearly better.
    """
    usual = 1 if isinstance(owner, _ConvTransposeNd) else 0
    matrices = {d: weight.movedim(d, 0).flatten(1) for d in range(weight.dim()) if weight.dim() > 1}
    fitting = {d: m for d, m in matrices.items() if m.shape == (left.numel(), right.numel())}
    if not fitting:
        return None
    fit = {d: abs(float(F.cosine_similarity(m @ right, left, dim=0))) for d, m in fitting.items()}
    best = max(fit, key=lambda d: fit[d])
    dim = usual if usual in fit and not fit[usual] < CLEAR < fit[best] else best
    largest: Tensor = torch.dot(left, fitting[dim] @ right)
    return weight / largest


def _checked(path: Path, form: Form, name: str, whole: Tensor | None) -> Tensor:
    halves = ", ".join(f"`{half}`" for half in form.halves(name))
    if whole is None:
        raise CheckpointError(
            f"`{path}`: {halves} do not fit each other ({form.what}); save the model without them."
        )
    if not bool(torch.isfinite(whole).all()):
        raise CheckpointError(
            f"`{path}`: {halves} give NaN or infinity as `{name}` ({form.what}); a model that "
            "diverged can't be tuned."
        )
    return whole


def _note(what: str, names: Sequence[str]) -> str:
    shown = ", ".join(f"`{n}`" for n in names[:3]) + (", ..." if len(names) > 3 else "")
    done = "multiplied into" if what == MASK else "worked into"
    count = "1 tensor" if len(names) == 1 else f"{len(names)} tensors"
    return f"{what} of the file were {done} {count} that the class has whole: {shown}"
