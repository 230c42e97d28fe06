"""Commands that take the flags of dataclasses: each flag is a field there and nowhere else."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import Field, dataclass, fields
from functools import update_wrapper
from typing import Annotated, Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from ..configs.flags import PANELS, Flag
from .options import option

T = TypeVar("T")
Command = Callable[..., None]
NAMED = ("__module__", "__name__", "__qualname__", "__doc__")


@dataclass(frozen=True)
class Given:
    """Values of a command's flags, by the names of the dataclasses' fields."""

    values: Mapping[str, Any]

    def __getitem__(self, name: str) -> Any:
        return self.values[name]

    def make(self, kind: type[T], **more: object) -> T:
        """The dataclass with these values; `more` wins. Raises what `kind` does of bad ones."""
        names = {field.name for field in fields(kind)}  # type: ignore[arg-type]
        own = {n: v for n, v in self.values.items() if n in names and v is not None}
        return kind(**(own | more))


def takes(
    *kinds: type,
    only: Collection[str] = (),
    leave_out: Collection[str] = (),
    unset: bool = False,
    changed: Mapping[str, Flag] | None = None,
) -> Callable[[Command], Command]:
    """A decorator: in place of its parameter of type `Given` the command takes the flags of the
    dataclasses, or `only` some.

    `unset`: defaults are None, since files have a say before the dataclass's own defaults.
    """
    offered = dict(_offered(kinds, only, leave_out, unset, changed or {}))

    def wrap(command: Command) -> Command:
        own = inspect.signature(command, eval_str=True).parameters
        name = next(n for n, p in own.items() if p.annotation is Given)
        listed = [q for p in own.values() for q in (offered.values() if p.name == name else (p,))]

        def run(**values: object) -> None:
            given = {n: _plain(values.pop(n)) for n in offered}
            command(**values, **{name: Given(given)})

        update_wrapper(run, command, NAMED, ())
        del run.__wrapped__  # type: ignore[attr-defined]
        run.__annotations__ = {}
        run.__signature__ = inspect.Signature(listed)  # type: ignore[attr-defined]
        return run

    return wrap


def _offered(
    kinds: Collection[type],
    only: Collection[str],
    leave_out: Collection[str],
    unset: bool,
    changed: Mapping[str, Flag],
) -> Iterator[tuple[str, inspect.Parameter]]:
    rows = [
        (changed.get(field.name, flag), field, hint)
        for kind in kinds
        for flag, field, hint in _flags(kind)
        if field.name not in leave_out and (not only or field.name in only)
    ]
    # `--help` shows the panels in the order in which their first flags come.
    for flag, field, hint in sorted(rows, key=lambda row: PANELS.index(row[0].panel)):
        default = field.default
        if isinstance(default, tuple) or (unset and not isinstance(default, bool)):
            default = None
        typed: object = Annotated[_accepted(hint), option(flag)]
        place = inspect.Parameter.POSITIONAL_OR_KEYWORD
        yield field.name, inspect.Parameter(field.name, place, default=default, annotation=typed)


def _flags(kind: type) -> Iterator[tuple[Flag, Field[object], object]]:
    """The fields of a dataclass that carry a flag, with the type they are declared with."""
    hints = get_type_hints(kind, include_extras=True)
    for field in fields(kind):
        hint, *marks = get_args(hints[field.name]) or (None,)
        for flag in marks:
            if isinstance(flag, Flag):
                yield flag, field, hint


def _accepted(hint: Any) -> Any:
    """The type as typer is told it: several values are a list; a choice is checked by us, with
    the nearest name."""
    if get_origin(hint) is tuple:
        return list[str] | None
    if get_origin(hint) is Literal:
        return str | None
    return hint if hint is bool else hint | None


def _plain(value: object) -> object:
    return tuple(value) if isinstance(value, list) else value
