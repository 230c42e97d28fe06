"""Index-level labels of tensor dimensions, joined by union-find.

A tracked dimension of size n is an int array of n labels; `None` is a dimension that stays whole
(batch, space, the model's own inputs). Two indices with the same root must be kept or dropped
together.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Labels: TypeAlias = NDArray[np.int64]
Dims: TypeAlias = tuple[Labels | None, ...]


class LabelSet:
    """All labels of one graph, their roots and the reasons why some are frozen."""

    def __init__(self) -> None:
        self._parent: list[int] = []
        self._frozen: dict[int, str] = {}
        self._free: set[int] = set()

    def new(self, size: int) -> Labels:
        start = len(self._parent)
        self._parent.extend(range(start, start + size))
        return np.arange(start, start + size, dtype=np.int64)

    def new_free(self, size: int) -> Labels:
        """Labels of indices that are all alike, such as those a dimension of size 1 expands to."""
        labels = self.new(size)
        self._free.update(labels.tolist())
        return labels

    def is_free(self, label: int) -> bool:
        """True if only indices that are all alike are tied to it."""
        return self.find(label) in self._free

    def find(self, label: int) -> int:
        root = label
        while self._parent[root] != root:
            root = self._parent[root]
        while self._parent[label] != root:
            self._parent[label], label = root, self._parent[label]
        return root

    def roots(self, labels: Labels) -> Labels:
        return np.fromiter((self.find(int(i)) for i in labels), dtype=np.int64, count=len(labels))

    def join(self, a: Labels | None, b: Labels | None, reason: str) -> Labels | None:
        """Tie two dimensions index by index; a dimension tied to a whole one is frozen."""
        if a is None or b is None or len(a) != len(b):
            self.freeze(a, reason)
            self.freeze(b, reason)
            return a if b is None else b
        if a is not b:
            for x, y in zip(a.tolist(), b.tolist(), strict=True):
                self.tie(x, y)
        return a

    def tie(self, x: int, y: int) -> None:
        rx, ry = self.find(x), self.find(y)
        if rx == ry:
            return
        self._parent[ry] = rx
        if not (rx in self._free and ry in self._free):
            self._free.discard(rx)
        if ry in self._frozen:
            self._frozen.setdefault(rx, self._frozen.pop(ry))

    def tie_all(self, labels: Labels) -> None:
        first = int(labels[0])
        for other in labels[1:].tolist():
            self.tie(first, other)

    def freeze(self, labels: Labels | None, reason: str) -> None:
        if labels is None:
            return
        for label in labels.tolist():
            self._frozen.setdefault(self.find(label), reason)

    def frozen(self, label: int) -> str | None:
        """The reason why the unit of `label` can't be dropped, or None."""
        return self._frozen.get(self.find(label))
