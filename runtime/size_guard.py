"""Calls of a graph that takes some sizes: any other is refused, since it might compute nonsense."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ..core.errors import UsageError
from ..core.model_io import Inputs
from ..core.span import Span

MANY = 4096  # shapes that are known to be good


class SizeGuard:
    """Tells the shapes that a graph takes. Shapes seen before cost a look into a set."""

    def __init__(self, inputs: Inputs) -> None:
        self._names = [name or f"input {n}" for n, name in enumerate(inputs.names)]
        self._keywords = list(inputs.kwargs)
        self._wanted = [
            [None if at == axis else spans.get(at, size) for at, size in enumerate(x.shape)]
            for x, axis, spans in zip(inputs, inputs.axes, inputs.spans, strict=True)
        ]
        self._good: set[tuple[Any, ...]] = set()

    def over(self, forward: Callable[..., Any]) -> Callable[..., Any]:
        """`forward`, called where the sizes are taken. Raises UsageError where they are not."""
        good, check, keywords = self._good, self._check, self._keywords

        def guarded(*args: Any, **kwargs: Any) -> Any:
            shapes = tuple([getattr(x, "shape", None) for x in args])
            if kwargs:
                named = (kwargs.get(name) for name in keywords)
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
