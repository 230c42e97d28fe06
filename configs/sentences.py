"""pydantic's errors as sentences: where, what was found, what is allowed, the nearest name."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydantic import BaseModel
    from pydantic_core import ErrorDetails

_KINDS = {
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "string_type": "text (put it in quotes)",
    "bool_type": "true or false",
    "tuple_type": "a list",
    "dict_type": "a mapping (`key: value`)",
    "model_type": "a mapping (`key: value`)",
    "model_attributes_type": "a mapping (`key: value`)",
    "finite_number": "a finite number",
}
_BOUNDS = {
    "less_than": ("lt", "less than"),
    "less_than_equal": ("le", "at most"),
    "greater_than": ("gt", "greater than"),
    "greater_than_equal": ("ge", "at least"),
}


def nearest(name: str, allowed: Iterable[str]) -> str:
    """`Did you mean` plus what is allowed, as the end of a sentence."""
    names = list(allowed)
    close = difflib.get_close_matches(name[:80], names, n=1, cutoff=0.5)
    hint = f"did you mean `{close[0]}`? Allowed" if close else "allowed"
    if not names:
        return "there is nothing to set here."
    return f"{hint}: {', '.join(names)}."


def place(path: Sequence[str | int]) -> str:
    """`adjust[2].prune.match["stem.*"]`; the empty path is the recipe itself."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        elif part.isidentifier():
            text += f".{part}" if text else part
        else:
            text += f"[{as_text(part)}]"
    return f"`{text}`" if text else "the recipe"


def as_text(value: object) -> str:
    """A value as the user would write it, shortened."""
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list):
        return "a list"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def tick(name: str) -> str:
    """A user's name in backticks: control characters escaped, shortened."""
    text = repr(name)[1:-1]
    return f"`{text}`" if len(text) <= 60 else f"`{text[:57]}...`"


def sentence(
    model: type[BaseModel], error: ErrorDetails, prefix: tuple[str | int, ...]
) -> tuple[tuple[str | int, ...], str]:
    """The path of one pydantic error, for its line, and its sentence."""
    path, kind, value = (*prefix, *error["loc"]), error["type"], error["input"]
    if kind == "extra_forbidden":
        fields = _fields_at(model, error["loc"][:-1])
        return path, unknown_key(path, fields)
    if kind == "missing":
        return path, f"{place(path)} is missing; it must be given."
    if isinstance(value, dict) and kind == "value_error":
        # A rule about several keys at once: the mapping itself is not worth repeating.
        return path, f"{place(path)} {_allowed(error, value).removeprefix('it ')}."
    return path, f"{place(path)} is {as_text(value)}; {_allowed(error, value)}."


def unknown_key(path: Sequence[str | int], allowed: Iterable[str]) -> str:
    key = str(path[-1])
    return f"{place(path[:-1])} has the unknown key {tick(key)}; {nearest(key, allowed)}"


def _allowed(error: ErrorDetails, value: object) -> str:
    kind, context = error["type"], error.get("ctx", {})
    if kind in _BOUNDS:
        key, words = _BOUNDS[kind]
        return f"it must be {words} {context[key]:g}"
    if kind in _KINDS:
        return f"it must be {_KINDS[kind]}"
    if kind == "literal_error":
        expected = str(context["expected"])
        names = [n.strip("' ") for n in expected.replace(" or ", ", ").split(",")]
        close = difflib.get_close_matches(str(value)[:80], names, n=1)
        return f"it must be {expected}" + (f" (did you mean `{close[0]}`?)" if close else "")
    if kind == "value_error":
        return str(context["error"])
    if kind == "too_short":
        return f"it must have at least {context['min_length']} entry"
    message = str(error["msg"])
    return message[:1].lower() + message[1:]


def _fields_at(model: type[BaseModel], path: Sequence[str | int]) -> list[str]:
    for part in path:
        if isinstance(part, str):
            model = _model_in(model.model_fields[part].annotation) or model
    return [name for name, f in model.model_fields.items() if not f.exclude]


def _model_in(annotation: object) -> type[BaseModel] | None:
    from pydantic import BaseModel  # not for `--help`

    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    inner = (_model_in(a) for a in getattr(annotation, "__args__", ()))
    return next((model for model in inner if model is not None), None)
