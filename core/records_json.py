"""Dataclasses of facts as JSON and back, each field checked against its annotation."""

from __future__ import annotations

import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import Annotated, Any, Literal, TypeVar

from .bounds import foreign_json
from .errors import ArtifactError

T = TypeVar("T")


def to_json(value: object) -> Any:
    """A dataclass (nested) as plain JSON types."""
    if is_dataclass(value) and not isinstance(value, type):
        return {f.name: to_json(getattr(value, f.name)) for f in fields(value)}
    if isinstance(value, Mapping):
        return {str(k): to_json(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_json(v) for v in value]
    return value


def from_json(cls: type[T], data: object, where: str = "record") -> T:
    """Inverse of `to_json`. Raises ArtifactError naming the first field that does not fit."""
    if not isinstance(data, dict):
        raise ArtifactError(f"`{where}` must be a JSON object; found {type(data).__name__}.")
    hints = typing.get_type_hints(cls, include_extras=True)
    unknown = sorted(set(data) - set(hints))
    if unknown:
        raise ArtifactError(
            f"`{where}` has the unknown field `{unknown[0]}`; was it written by a newer version?"
        )
    values = {k: _decode(hints[k], v, f"{where}.{k}") for k, v in data.items()}
    try:
        return cls(**values)
    except TypeError as error:
        raise ArtifactError(f"`{where}` is incomplete: {error}.") from error


def _decode(hint: object, value: object, where: str) -> object:
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        decoded = _decode(args[0], value, where)
        if wanted := args[1].unlike(decoded):
            raise ArtifactError(f"`{where}` is {_short(value)}; it must be {wanted}.")
        return decoded
    if origin in (types.UnionType, typing.Union):
        if value is None and type(None) in args:
            return None
        return _decode(next(a for a in args if a is not type(None)), value, where)
    if origin is tuple:
        return _decode_tuple(args, value, where)
    if origin in (list, Sequence):
        return list(_decode_tuple(args, value, where))
    if origin in (dict, Mapping):
        return _decode_mapping(args[1], value, where)
    if origin is Literal:
        if not isinstance(value, (str, int)) or value not in args:
            allowed = ", ".join(map(str, args))
            raise ArtifactError(f"`{where}` is {_short(value)}; allowed are {allowed}.")
        return value
    if is_dataclass(hint):
        return from_json(hint, value, where)  # type: ignore[arg-type]
    if hint is Any and (reason := foreign_json(value)):
        raise ArtifactError(f"`{where}` holds {reason}.")
    return _decode_plain(hint, value, where)


def _decode_plain(hint: object, value: object, where: str) -> object:
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        try:
            return float(value)
        except OverflowError as error:
            raise ArtifactError(f"`{where}` is a number of {value.bit_length()} bits.") from error
    for kind in (int, float, str, bool):
        good = isinstance(value, kind) and (kind is bool or not isinstance(value, bool))
        if hint is kind and not good:
            raise ArtifactError(f"`{where}` must be {kind.__name__}; found {type(value).__name__}.")
    return value


def _short(value: object) -> str:
    text = "a number of many digits" if _vast(value) else repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _vast(value: object) -> bool:
    return isinstance(value, int) and value.bit_length() > 128


def _decode_tuple(args: tuple[object, ...], value: object, where: str) -> tuple[object, ...]:
    if not isinstance(value, list):
        raise ArtifactError(f"`{where}` must be a list; found {type(value).__name__}.")
    return tuple(_decode(args[0], v, f"{where}[{i}]") for i, v in enumerate(value))


def _decode_mapping(hint: object, value: object, where: str) -> dict[str, object]:
    if not isinstance(value, dict):
        raise ArtifactError(f"`{where}` must be a JSON object; found {type(value).__name__}.")
    return {k: _decode(hint, v, f"{where}.{k}") for k, v in value.items()}
