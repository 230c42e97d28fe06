"""The sizes that a captured graph takes: read off the symbols and guards that its capture left.

A capture decides what it does by sizes (a branch, a broadcast, a table that is long enough) and
notes each decision as a guard. Sizes for which all of them hold give the graph that was captured.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import islice, product
from typing import Any

import sympy
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor
from torch.fx import GraphModule
from torch.fx.experimental.symbolic_shapes import ShapeEnv
from torch.utils._sympy.functions import Mod, PythonMod

from ..core.model_io import Inputs
from ..core.span import Span

TRIED, WIDEST = 16, 1 << 12  # sizes of a span at which the guards are asked, the largest of them
MOST = 1 << 24  # sizes above it stand for any
TOGETHER = 256  # mixtures of sizes
BATCHES = (1, 3)
SECONDS = 10.0  # of asking, for one capture
FACTORS = (1, 2, 4, 8, 16, 32, 64)  # of what sizes are multiples, where some between do not fit


def spans_found(module: GraphModule, inputs: Inputs) -> tuple[Mapping[int, Span], ...]:
    """By input, what of `inputs.varies` a fresh capture leaves open, as far as its guards allow it.

    Empty where nothing varies. Raises ValueError with the reason where that is not known.
    """
    sizes = _open_sizes(module, inputs)
    if not sizes:
        return ()
    strange = [expr for expr in sizes.values() if not expr.as_coeff_Mul()[1].is_Symbol]
    if strange:
        raise ValueError(f"a size is only known as {strange[0]}")
    guards = Guards.of(_environment(module))
    roots = {place: expr.as_coeff_Mul() for place, expr in sizes.items()}
    spans = {root: guards.span(root) for _, root in roots.values()}
    guards.check_together(spans)
    often = Counter(root for _, root in roots.values())
    found: list[dict[int, Span]] = [{} for _ in inputs]
    for (place, axis), (factor, root) in roots.items():
        span = _within(spans[root].times(int(factor)), inputs.spans[place][axis])
        tied = str(root) if often[root] > 1 else ""
        if span.high is None or span.high > span.low:
            found[place][axis] = replace(span, tied=tied)
    return tuple(found) if any(found) else ()


def _open_sizes(module: GraphModule, inputs: Inputs) -> dict[tuple[int, int], sympy.Expr]:
    """By place of the input and axis, sizes that are to vary and do: `s7`, `4*s7`."""
    places = [n for n in module.graph.nodes if n.op == "placeholder"]
    values = {n.name: n.meta.get("val") for n in places}
    names = {id(x): name for x, name in zip(inputs.in_order([*values]), values, strict=False)}
    sizes: dict[tuple[int, int], sympy.Expr] = {}
    for place, (x, wanted) in enumerate(zip(inputs, inputs.spans, strict=True)):
        value = values.get(names.get(id(x), ""))
        shape: Any = value.shape if isinstance(value, Tensor) else ()
        for axis in (a for a in wanted if a < len(shape) and not isinstance(shape[a], int)):
            if not shape[axis].node.expr.is_Integer:  # it was taken for a number on the way
                sizes[place, axis] = shape[axis].node.expr
    return sizes


def _within(found: Span, asked: Span) -> Span:
    highs = [h for h in (found.high, asked.high) if h is not None]
    return Span(max(found.low, asked.low), min(highs, default=None), found.multiple)


def _environment(module: GraphModule) -> ShapeEnv:
    values = (n.meta.get("val") for n in module.graph.nodes if n.op == "placeholder")
    env = next(v.fake_mode.shape_env for v in values if isinstance(v, FakeTensor))
    assert env is not None
    return env


@dataclass(frozen=True)
class Guards:
    """Conditions on sizes, each true for those that the capture was `shown`."""

    conditions: tuple[sympy.Basic, ...]
    shown: Mapping[sympy.Symbol, sympy.Integer]
    ranges: Mapping[sympy.Symbol, Any]
    deadline: float

    @classmethod
    def of(cls, env: ShapeEnv) -> Guards:
        conditions = dict.fromkeys(env.replace(guard.expr) for guard in env.guards)
        deadline = time.monotonic() + SECONDS
        return cls(tuple(conditions), dict(env.backed_var_to_val), env.var_to_range, deadline)

    def hold(self, sizes: Mapping[sympy.Symbol, int]) -> bool:
        """True for sizes like these, the others as shown. Raises ValueError once it is late."""
        if time.monotonic() > self.deadline:
            raise ValueError("the conditions on its size take too long to look through")
        values = {**self.shown, **{name: sympy.Integer(n) for name, n in sizes.items()}}
        wanted = set(sizes)
        return all(
            c.xreplace(values) == sympy.true for c in self.conditions if wanted & c.free_symbols
        )

    def span(self, name: sympy.Symbol) -> Span:
        """The sizes of `name` for which all conditions hold, the others as shown.

        Raises ValueError where they hold at some sizes between and not at others.
        """
        shown, first, bad = int(self.shown[name]), self._multiple(name), 0
        for step in (first * factor for factor in FACTORS if shown % (first * factor) == 0):
            span, wrong = self._span(name, shown, step)
            if not wrong:
                return span
            bad = bad or wrong
        raise ValueError(f"the model computes something else at size {bad}")

    def _span(self, name: sympy.Symbol, shown: int, step: int) -> tuple[Span, int]:
        """Of multiples of `step`, and the first size between at which a condition fails."""
        bounds = self.ranges[name]
        least = -(-max(1, int(bounds.lower)) // step) * step
        most = min(MOST, int(bounds.upper)) if bounds.upper.is_Integer else MOST
        low = self._edge(name, shown, least, step)
        high = self._edge(name, shown, most // step * step, step)
        between = _between(low, min(high, max(shown, WIDEST // step * step)), step)
        wrong = next((size for size in between if not self.hold({name: size})), 0)
        return Span(low, None if high > MOST - step else high, step), wrong

    def check_together(self, spans: Mapping[sympy.Symbol, Span]) -> None:
        """Raises ValueError where sizes are taken one by one and not together."""
        others = [name for name in self.shown if name not in spans]
        choices = [
            [*span.ends(int(self.shown[name])), int(self.shown[name])]
            for name, span in spans.items()
        ]
        batches = [[*BATCHES, int(self.shown[name])] for name in others]
        names = [*spans, *others]
        for sizes in islice(product(*choices, *batches), TOGETHER):
            if not self.hold(dict(zip(names, sizes, strict=True))):
                raise ValueError("the model computes something else at some sizes together")

    def _multiple(self, name: sympy.Symbol) -> int:
        """A divisor of every size: conditions such as `Mod(size, 32) == 0`."""
        found = 1
        for condition in self.conditions:
            if isinstance(condition, sympy.Eq) and 0 in condition.args:
                rest = next(side for side in condition.args if side != 0)
                modulo = isinstance(rest, (Mod, PythonMod)) and rest.args[1].is_Integer
                if modulo and rest.args[0] == name:
                    found = int(sympy.ilcm(found, int(rest.args[1])))
        return found

    def _edge(self, name: sympy.Symbol, shown: int, end: int, step: int) -> int:
        """The last size on the way from `shown` to `end` at which the conditions hold."""
        if self.hold({name: end}):
            return end
        good, bad = shown, end
        while abs(bad - good) > step:
            middle = good + (bad - good) // step // 2 * step
            if middle == good:
                middle += step if bad > good else -step
            good, bad = (middle, bad) if self.hold({name: middle}) else (good, middle)
        return good


def _between(low: int, high: int, step: int) -> list[int]:
    """Both ends, what lies next to them and sizes in between."""
    count = (high - low) // step
    places = {0, 1, 2, count - 1, count, *(count * n // TRIED for n in range(TRIED))}
    return sorted({low + step * place for place in places if 0 <= place <= count})
