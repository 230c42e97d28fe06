"""Why weights do not fit a model: one sentence with the likely cause, and the differences."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

ROWS = 8
Tensors = Mapping[str, Tensor]


@dataclass(frozen=True)
class Differences:
    """Names that only one side has, and names whose shapes differ, in the model's order."""

    held: Tensors
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
        rows += [(n, _shape(self.held, n), _shape(self.wanted, n)) for n in names[:ROWS]]
        wide = [max(len(row[i]) for row in rows) for i in (0, 1)]
        lines = [f"  {a:<{wide[0]}}  {b:<{wide[1]}}  {c}" for a, b, c in rows]
        more = len(names) - ROWS
        return [*lines, f"  and {more} more"] if more > 0 else lines

    def _cause(self) -> str:
        for found in (self._classes(), self._depth(), self._renamed(), self._width()):
            if found:
                return found
        if self.missing and self.unexpected:
            return "another class, or a part was renamed"
        if self.missing:
            return "only a part of the model was saved, or an option added layers to it"
        if self.unexpected:
            return "the model was built without a head or option that it had"
        return "other factory arguments, such as width or number of classes"

    def _classes(self) -> str:
        """Nothing but the last layer's rows differ."""
        pairs = {(self.held[n].shape[:1], self.wanted[n].shape[:1]) for n in self.misshapen}
        same_columns = all(self.held[n].shape[1:] == self.wanted[n].shape[1:]
                           for n in self.misshapen)  # fmt: skip
        owners = {n.rpartition(".")[0] for n in self.misshapen}
        if self.missing or self.unexpected or len(pairs) != 1 or len(owners) != 1:
            return ""
        last = [n for n in self.wanted if self.wanted[n].dim()][-1]
        if not same_columns or last not in self.misshapen:
            return ""
        (held, wanted) = (shape[0] for shape in next(iter(pairs)))
        return (
            f"another number of classes: `{next(iter(owners))}` has {held} outputs in the file and "
            f"{wanted} in the model (pass it in `model.args`)"
        )

    def _depth(self) -> str:
        """Whole numbered blocks are on one side only, and nothing else differs."""
        one_sided = self.missing or self.unexpected
        if (self.missing and self.unexpected) or self.misshapen or not one_sided:
            return ""
        both = set(self.held) & set(self.wanted)
        numbered = {_block(n) for n in one_sided}
        if "" in numbered or any(_block(n) in numbered for n in both):
            return ""
        # A sibling of the same list is on both sides, so it is a list that is longer.
        lists = {b.rpartition(".")[0] for b in numbered}
        if not all(any(_block(n).rpartition(".")[0] == name for n in both) for name in lists):
            return ""
        side = "fewer" if self.missing else "more"
        return f"another depth: the file has {side} blocks in `{min(lists)}` than the model"

    def _renamed(self) -> str:
        def shapes(of: Tensors, names: tuple[str, ...]) -> Counter[tuple[int, ...]]:
            return Counter(tuple(of[n].shape) for n in names)

        same = shapes(self.held, self.unexpected) == shapes(self.wanted, self.missing)
        if not same or not self.missing or self.misshapen:
            return ""
        pair = next((u, m) for u in self.unexpected for m in self.missing
                    if self.held[u].shape == self.wanted[m].shape)  # fmt: skip
        return f"a part was renamed (the shapes are the same): `{pair[0]}` for `{pair[1]}`"

    def _width(self) -> str:
        """Most that differ do so by one factor."""
        factors: Counter[float] = Counter()
        for name in self.misshapen:
            held, wanted = self.held[name].shape, self.wanted[name].shape
            if len(held) == len(wanted):
                factors.update(a / b for a, b in zip(held, wanted, strict=True) if b and a != b)
        if not factors or len(self.misshapen) < 3:
            return ""
        factor, count = factors.most_common(1)[0]
        if 2 * count < sum(factors.values()):
            return ""
        return f"another width: the file's layers are {factor:g} times as wide as the model's"


def _shape(tensors: Tensors, name: str) -> str:
    found = tensors.get(name)
    return "-" if found is None else ("x".join(map(str, found.shape)) or "a number")


def _block(name: str) -> str:
    """`layers.3.conv.weight` -> `layers.3`; empty where no part of the name is a number."""
    parts = name.split(".")
    at = next((i for i, p in enumerate(parts) if p.isdigit()), 0)
    return ".".join(parts[: at + 1]) if at else ""
