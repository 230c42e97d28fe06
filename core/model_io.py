"""Calls of a model and their results: arguments, keywords, nested outputs.

Standard library only when it runs, so that every room can share it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass, replace
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from .span import Span

if TYPE_CHECKING:
    from torch import Tensor

T = TypeVar("T")
AnyInputs: TypeAlias = "Inputs | Tensor | tuple[Tensor, ...] | list[Tensor] | Mapping[str, Tensor]"
# (inputs, targets) of each batch.
Batches: TypeAlias = "Iterable[tuple[AnyInputs, Tensor]]"


@dataclass(frozen=True)
class Inputs:
    """Tensors a model is called with: by place, then by name. Iterates over all of them.

    `batch_axes`: for each tensor in that order the axis along which examples lie, None where it has
    none; empty where it is the first axis of every tensor but scalars. `varies`: by axis of each
    tensor, the sizes that a model is to take; empty where these are all that it needs to take.
    """

    args: tuple[Tensor, ...] = ()
    kwargs: Mapping[str, Tensor] = field(default_factory=dict)
    batch_axes: tuple[int | None, ...] = ()
    varies: tuple[Mapping[int, Span], ...] = ()

    @classmethod
    def of(cls, value: AnyInputs) -> Inputs:
        """A tensor, a tuple or list of tensors, or tensors by name, as users write them."""
        if isinstance(value, Inputs):
            return value
        if isinstance(value, Mapping):
            return cls((), dict(value))
        return cls(tuple(value)) if isinstance(value, (tuple, list)) else cls((value,))

    def __iter__(self) -> Iterator[Tensor]:
        yield from self.args
        yield from self.kwargs.values()

    def __len__(self) -> int:
        return len(self.args) + len(self.kwargs)

    def __getitem__(self, index: int) -> Tensor:
        return tuple(self)[index]

    @property
    def names(self) -> tuple[str | None, ...]:
        return (*(None for _ in self.args), *self.kwargs)

    @property
    def labels(self) -> list[str]:
        """A name of each for people: `input 0` where it has none."""
        return [name or f"input {place}" for place, name in enumerate(self.names)]

    @property
    def axes(self) -> tuple[int | None, ...]:
        """The axis of the batch in each tensor, None where it has none."""
        return self.batch_axes or tuple(0 if x.dim() else None for x in self)

    @property
    def batch(self) -> int:
        """Examples in one call."""
        pairs = zip(self, self.axes, strict=True)
        return next((int(x.shape[axis]) for x, axis in pairs if axis is not None), 1)

    @property
    def spans(self) -> tuple[Mapping[int, Span], ...]:
        """Spans of each tensor, by axis."""
        return self.varies or tuple({} for _ in self)

    def like(self, other: Inputs) -> Inputs:
        """The same tensors, as a user's batch holds them, with the batch axes of `other`."""
        if len(self.args) != len(other.args) or self.kwargs.keys() != other.kwargs.keys():
            return self
        count, place = len(self.args), {name: n for n, name in enumerate(other.kwargs)}
        order = [*range(count), *(count + place[name] for name in self.kwargs)]
        axes, varies = (
            tuple(rows[n] for n in order) if rows else ()
            for rows in (other.batch_axes, other.varies)
        )
        return replace(self, batch_axes=axes, varies=varies)

    def map(self, change: Callable[[Tensor], Tensor]) -> Inputs:
        args = tuple(change(x) for x in self.args)
        return replace(self, args=args, kwargs={k: change(x) for k, x in self.kwargs.items()})

    def rows(self, change: Callable[[Tensor, int], Tensor]) -> Inputs:
        """`change` of each tensor that has a batch, which is given its axis; others as they are."""
        axes = iter(self.axes)

        def changed(x: Tensor) -> Tensor:
            axis = next(axes)
            return x if axis is None else change(x, axis)

        return self.map(changed)

    def call(self, model: Callable[..., T]) -> T:
        return model(*self.args, **self.kwargs)

    def in_order(self, names: Sequence[str]) -> list[Tensor]:
        """The tensors in the order of a graph's placeholders, which bear the keywords' names."""
        rest = names[len(self.args) :]
        by_name = set(rest) == set(self.kwargs)
        return [*self.args, *(self.kwargs[n] for n in rest)] if by_name else list(self)

    def by_place(self, names: Sequence[str]) -> Inputs:
        """All of them by place, in that order."""
        flat = self.in_order(names)
        place = {id(x): n for n, x in enumerate(self)}
        order = [place[id(x)] for x in flat]
        axes, varies = self.axes, self.spans
        return Inputs(
            tuple(flat),
            batch_axes=tuple(axes[n] for n in order) if self.batch_axes else (),
            varies=tuple(varies[n] for n in order) if self.varies else (),
        )


def plain(outputs: object) -> object:
    """Outputs without the user's classes: a dataclass or other mapping becomes a dict.

    What is None or holds no tensor (a cache that is not asked for) is left out of dicts.
    """
    if is_dataclass(outputs) and not isinstance(outputs, type):
        items = {f.name: getattr(outputs, f.name) for f in fields(outputs)}
    elif isinstance(outputs, Mapping):
        items = dict(outputs)
    elif isinstance(outputs, (tuple, list)):
        return tuple(plain(x) for x in outputs)
    else:
        return outputs
    kept = {str(k): plain(v) for k, v in items.items()}
    return {k: v for k, v in kept.items() if leaves(v)}


def leaves(outputs: Any) -> list[Tensor]:
    """All tensors of nested outputs, in order."""
    if isinstance(outputs, Mapping):
        return [leaf for value in outputs.values() for leaf in leaves(value)]
    if isinstance(outputs, (tuple, list)):
        return [leaf for value in outputs for leaf in leaves(value)]
    return [outputs] if hasattr(outputs, "is_floating_point") else []


def primary(outputs: object) -> Any:
    """The output that metrics and losses look at: `logits` where there is one, else the first."""
    outputs = plain(outputs)
    if isinstance(outputs, dict) and "logits" in outputs:
        return primary(outputs["logits"])
    tensors = leaves(outputs)
    return tensors[0] if tensors else outputs
