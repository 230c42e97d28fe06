"""Calls of a graph that takes some sizes: any other is refused, since it might compute nonsense."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from ..core.errors import UsageError
from ..core.model_io import Inputs
from ..core.span import Span

MANY = 4096  # shapes that are known to be good


class SizeGuard:
    """Tells the shapes that a graph takes. Shapes seen before cost a look into a set."""

    def __init__(self, inputs: Inputs, parameters: Sequence[str] = ()) -> None:
        """`parameters`: names of all that the graph takes, in order; a call may use any of them."""
        self._parameters = list(parameters) or [*("" for _ in inputs.args), *inputs.kwargs]
        rows = {
            id(x): (
                name,
                [None if at == axis else spans.get(at, n) for at, n in enumerate(x.shape)],
            )
            for name, x, axis, spans in zip(
                inputs.names, inputs, inputs.axes, inputs.spans, strict=True
            )
        }
        ordered = [rows[id(x)] for x in inputs.in_order(self._parameters)]
        self._names = [name or f"input {n}" for n, (name, _) in enumerate(ordered)]
        self._wanted = [wanted for _, wanted in ordered]
        self._good: set[tuple[Any, ...]] = set()

    def over(self, forward: Callable[..., Any]) -> Callable[..., Any]:
        """`forward`, called where the sizes are taken. Raises UsageError where they are not."""
        good, check, parameters = self._good, self._check, self._parameters

        def guarded(*args: Any, **kwargs: Any) -> Any:
            if torch.compiler.is_compiling():  # sizes are symbols there, and are guarded by it
                return forward(*args, **kwargs)
            shapes = tuple([getattr(x, "shape", None) for x in args])
            if kwargs:
                named = (kwargs.get(name) for name in parameters[len(args) :])
                shapes += tuple([getattr(x, "shape", None) for x in named])
            if shapes not in good:
                check(shapes)
            return forward(*args, **kwargs)

        return guarded

    def _check(self, shapes: Sequence[Any]) -> None:
        tied: dict[str, tuple[int, str]] = {}
        for name, shape, wanted in zip(self._names, shapes, self._wanted, strict=False):
            if shape is None:
                continue
            if len(shape) != len(wanted):
                raise UsageError(
                    f"`{name}` has the shape {list(shape)}; the artifact takes {len(wanted)} axes."
                )
            for axis, (size, want) in enumerate(zip(shape, wanted, strict=True)):
                self._check_axis(name, axis, int(size), want)
                if isinstance(want, Span) and want.tied:
                    place = f"`{name}` axis {axis}"
                    other, where = tied.setdefault(want.tied, (int(size), place))
                    if other != size:
                        raise UsageError(
                            f"{place} is {size} and {where} is {other}; they must be the same."
                        )
        if len(self._good) < MANY:
            self._good.add(tuple(shapes))

    def _check_axis(self, name: str, axis: int, size: int, want: int | Span | None) -> None:
        if isinstance(want, Span):
            if not want.takes(size):
                raise UsageError(
                    f"`{name}` is {size} in axis {axis}; the artifact takes {want.words()} there."
                )
        elif want is not None and size != want:
            raise UsageError(
                f"`{name}` is {size} in axis {axis}; the artifact takes only {want} there."
            )
