"""Sizes that a graph names by symbols, in numbers, for inputs like those that are shown."""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

from torch import Tensor
from torch.fx import GraphModule, Node

from ..core.model_io import AnyInputs, Inputs

_ARITHMETIC: dict[type, Callable[[int, int], int]] = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul,
    ast.FloorDiv: operator.floordiv, ast.Mod: operator.mod,
}  # fmt: skip


@dataclass(frozen=True)
class ShownSizes:
    """`batch` stands for what can't be told."""

    batch: int
    symbols: Mapping[str, int]

    @classmethod
    def of(cls, module: GraphModule, shown: AnyInputs) -> ShownSizes:
        inputs = Inputs.of(shown)
        places = [n for n in module.graph.nodes if n.op == "placeholder"]
        given = inputs.in_order([n.name for n in places])
        symbols: dict[str, int] = {}
        for node, x in zip(places, given, strict=False):
            value = node.meta.get("val")
            for size, number in zip(getattr(value, "shape", ()), x.shape, strict=False):
                if not isinstance(size, int):
                    symbols[str(size)] = int(number)
        return cls(inputs.batch, symbols)

    def number(self, size: Any) -> int:
        if isinstance(size, int):
            return size
        text = str(size)
        if text in self.symbols:
            return self.symbols[text]
        try:
            return max(1, self._of(ast.parse(text, mode="eval").body))
        except (ValueError, SyntaxError, KeyError, ZeroDivisionError, RecursionError):
            return self.batch

    def of_node(self, node: Node) -> list[int] | None:
        """The shape of its example value, None where it has none."""
        value = node.meta.get("val")
        return [self.number(n) for n in value.shape] if isinstance(value, Tensor) else None

    def count(self, sizes: Any) -> int:
        return prod(self.number(size) for size in sizes)

    def _of(self, part: ast.expr) -> int:
        if isinstance(part, ast.Constant) and type(part.value) is int:
            return part.value
        if isinstance(part, ast.Name):
            return self.symbols[part.id]
        if isinstance(part, ast.UnaryOp) and isinstance(part.op, ast.USub):
            return -self._of(part.operand)
        if isinstance(part, ast.BinOp):
            return _ARITHMETIC[type(part.op)](self._of(part.left), self._of(part.right))
        raise ValueError(ast.dump(part))
