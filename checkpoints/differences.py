"""Reasons why weights do not fit a model: one sentence with the likely cause, and the
differences."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from .leftovers import ticked
from .reparametrized import split_in

ROWS = 8
Tensors = Mapping[str, Tensor]


@dataclass(frozen=True)
class Differences:
    """Names that only one side has, and names whose shapes differ, in the model's order."""

    stored: Tensors
    wanted: Tensors
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    misshapen: tuple[str, ...]

    def __bool__(self) -> bool:
        return bool(self.missing or self.unexpected or self.misshapen)

    def text(self, path: Path) -> str:
        """The first line says how many and why; a line for each of the first ROWS follows."""
        counts = {
            "missing": self.missing, "unexpected": self.unexpected,
            "of another shape": self.misshapen,
        }  # fmt: skip
        parts = ", ".join(f"{len(names)} {what}" for what, names in counts.items() if names)
        table = "\n".join(self._table())
        return f"`{path}` does not fit the model: {parts}; likely {self._cause()}.\n{table}"

    def _table(self) -> list[str]:
        names = [*self.misshapen, *self.missing, *self.unexpected]
        rows = [("tensor", "in the file", "in the model")]
        rows += [(n, _shape(self.stored, n), _shape(self.wanted, n)) for n in names[:ROWS]]
        wide = [max(len(row[i]) for row in rows) for i in (0, 1)]
        lines = [f"  {a:<{wide[0]}}  {b:<{wide[1]}}  {c}" for a, b, c in rows]
        more = len(names) - ROWS
        return [*lines, f"  and {more} more"] if more > 0 else lines

    def _cause(self) -> str:
        causes = (self._classes, self._depth, self._split, self._renamed, self._width)
        if likely := next((text for cause in causes if (text := cause())), ""):
            return likely
        if self.missing and self.unexpected:
            return "another class, or a part was renamed"
        if self.missing:
            return "only a part of the model was saved, or an option added layers to it"
        if self.unexpected:
            return self.surplus()
        return "other factory arguments, such as width or number of classes"

    def _classes(self) -> str:
        """Nothing but the last layer's rows differ."""
        pairs = {(self.stored[n].shape[:1], self.wanted[n].shape[:1]) for n in self.misshapen}
        same_columns = all(self.stored[n].shape[1:] == self.wanted[n].shape[1:]
                           for n in self.misshapen)  # fmt: skip
        owners = {n.rpartition(".")[0] for n in self.misshapen}
        if self.missing or self.unexpected or len(pairs) != 1 or len(owners) != 1:
            return ""
        last = [n for n in self.wanted if self.wanted[n].dim()][-1]
        if not same_columns or last not in self.misshapen:
            return ""
        (stored, wanted) = (shape[0] for shape in next(iter(pairs)))
        return (
            f"another number of classes: `{next(iter(owners))}` has {stored} outputs in the file "
            f"and {wanted} in the model (pass it in `model.args`)"
        )

    def _depth(self) -> str:
        side = "fewer" if self.missing else "more"
        first = next(iter(self.blocks()), "")
        return first and f"another depth: the file has {side} blocks in `{first}` than the model"

    def blocks(self, empty: bool = False) -> list[str]:
        """Lists of blocks, where whole blocks are on one side only and nothing else differs.

        `empty`: one side may have no block of a list at all.
        """
        one_sided = self.missing or self.unexpected
        if (self.missing and self.unexpected) or self.misshapen or not one_sided:
            return []
        both = set(self.stored) & set(self.wanted)
        numbered = {_block(n) for n in one_sided}
        if "" in numbered or any(_block(n) in numbered for n in both):
            return []
        # A sibling of the same list is on both sides, so it is a list that is longer.
        lists = {b.rpartition(".")[0] for b in numbered}
        if not empty and not all(
            any(_block(n).rpartition(".")[0] == name for n in both) for name in lists
        ):
            return []
        return sorted(lists)

    def _split(self) -> str:
        """torch's pruning, weight norms and other parametrizations: on one side only."""
        if name := split_in(self.unexpected):
            return (
                f"`{name}` was saved under a parametrization that can't be worked into it; take "
                "it off before saving (`torch.nn.utils.parametrize.remove_parametrizations`)"
            )
        if name := split_in(self.missing):
            return (
                f"the class splits `{name}` by a parametrization, pruning mask or norm, and the "
                "file holds it whole; build the class without"
            )
        return ""

    def surplus(self) -> str:
        parts = list(dict.fromkeys(self._part(name) for name in self.unexpected))
        shown = ticked(part.removesuffix(".") for part in parts)
        pattern = "|".join(f"^{re.escape(p)}" + ("" if p.endswith(".") else "$") for p in parts[:3])
        return (
            f"the model was built without {shown}, a head or option that it had; if that is "
            f"not part of it, leave it out with `--ignore '{pattern}'`"
        )

    def _part(self, name: str) -> str:
        """The outermost part of the name that the model has nothing in."""
        parts = name.split(".")
        starts = [".".join(parts[:i]) + "." for i in range(1, len(parts))]
        return next((s for s in starts if not any(k.startswith(s) for k in self.wanted)), name)

    def _renamed(self) -> str:
        def shapes(of: Tensors, names: tuple[str, ...]) -> Counter[tuple[int, ...]]:
            return Counter(tuple(of[n].shape) for n in names)

        same = shapes(self.stored, self.unexpected) == shapes(self.wanted, self.missing)
        if not same or not self.missing or self.misshapen:
            return ""
        pair = next((u, m) for u in self.unexpected for m in self.missing
                    if self.stored[u].shape == self.wanted[m].shape)  # fmt: skip
        return f"a part was renamed (the shapes are the same): `{pair[0]}` for `{pair[1]}`"

    def _width(self) -> str:
        """Most that differ do so by one factor."""
        factors: Counter[float] = Counter()
        for name in self.misshapen:
            stored, wanted = self.stored[name].shape, self.wanted[name].shape
            if len(stored) == len(wanted):
                factors.update(a / b for a, b in zip(stored, wanted, strict=True) if b and a != b)
        if not factors or len(self.misshapen) < 3:
            return ""
        factor, count = factors.most_common(1)[0]
        if 2 * count < sum(factors.values()):
            return ""
        return f"another width: the file's layers are {factor:g} times as wide as the model's"


def _shape(tensors: Tensors, name: str) -> str:
    tensor = tensors.get(name)
    return "-" if tensor is None else ("x".join(map(str, tensor.shape)) or "a number")


def _block(name: str) -> str:
    """`layers.3.conv.weight` -> `layers.3`; empty where no part of the name is a number."""
    parts = name.split(".")
    at = next((i for i, p in enumerate(parts) if p.isdigit()), 0)
    return ".".join(parts[: at + 1]) if at else ""
