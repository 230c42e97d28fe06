"""The JSON of a `.pt2`, of which torch gets what is of its schema and of a stated form alone.

Texts become code in four ways: sizes are handed to sympy, which evaluates them; tree specs import
what an enum or a default factory is of; nodes call what their target names; and names end up in
the source of the `forward` that is generated. So nothing passes because it looks harmless: each
field is of its type, and each text of the form that its field has (FORMS; a name, where none is
listed).
"""

from __future__ import annotations

import dataclasses
import enum
import json
import types
import typing
from collections.abc import Callable
from functools import cache
from math import isfinite

from torch._export.serde import schema
from torch._export.serde.union import _Union

from ..core.json_values import JsonObject
from .program_calls import HARMLESS, HIGHER, reason_against, registered, unfit_argument
from .program_names import (
    PAYLOAD,
    VERSION,
    is_argument,
    is_key,
    is_name,
    is_path,
    is_symbol,
    is_type,
)
from .program_sizes import size_text
from .program_specs import Strange, spec_text

DEEPEST = 150  # of what is nested in what; a graph within a graph is nine
LARGEST_INTEGER = 1 << 64
LARGE = 1 << 1000  # a number that a float still holds
MAX_DIMENSIONS = 64
LONGEST_TEXT = 1 << 20
INFINITE = ("Infinity", "-Infinity", "NaN")
KEPT = ("nn_module_stack", "stack_trace")  # of the facts about a node; the others name functions
DROPPED: JsonObject = {"guards_code": [], "metadata": {}}  # torch compiles guards
Form = Callable[[str], bool]


def _text(text: str) -> bool:
    """It is written as a literal, or not at all."""
    return len(text) <= LONGEST_TEXT


FORMS: dict[str, Form] = {
    "Argument.as_string": _text, "Argument.as_strings": _text,
    # Of an argument that was a text when the program was exported: torch quotes it in a guard.
    "ConstantValue.as_string": is_key,
    "NamedArgument.name": is_argument,
    "InputToConstantInputSpec.name": is_argument, "ExportedProgram.verifiers": is_argument,
    **dict.fromkeys(
        ("InputToParameterSpec.parameter_name", "InputToBufferSpec.buffer_name",
         "InputToTensorConstantSpec.tensor_constant_name", "InputToCustomObjSpec.custom_obj_name",
         "BufferMutationSpec.buffer_name", "ParameterMutationSpec.parameter_name",
         "GradientToParameterSpec.parameter_name", "ModuleCallEntry.fqn", "PayloadConfig.config"),
        is_path,
    ),
    "CustomObjArgument.class_fqn": is_type, "GraphModule.treespec_namedtuple_fields": is_type,
    "ExportedProgram.torch_version": lambda text: VERSION.fullmatch(text) is not None,
    "ExportedProgram.range_constraints": is_symbol,
    "PayloadMeta.path_name": lambda text: PAYLOAD.fullmatch(text) is not None,
}  # fmt: skip


class Texts:
    """`refused`: what would run; `pickled`: the parts that the JSON says are pickles.

    `unknown`: operators that no library has registered here. `payloads`: where weights lie.
    """

    def __init__(self) -> None:
        self.refused: list[str] = []
        self.pickled: set[str] = set()
        self.unknown: list[str] = []
        self.payloads: list[JsonObject] = []
        self.operators = registered()
        self.depth = 0

    def cleaned(self, content: bytes, weights: bool = False) -> str:
        """The same without guards, as torch's schema has it; `weights`: it says where they lie.

        Raises ValueError where it is not of the schema.
        """
        whole = schema.PayloadConfig if weights else schema.ExportedProgram
        program = json.loads(content.decode("utf-8"))
        return json.dumps(self._value(whole, program, whole.__name__))

    def _value(self, hint: object, value: object, place: str) -> object:
        self.depth += 1
        if self.depth > DEEPEST:
            raise ValueError("it is nested deeper than any program")
        result = self._typed(hint, value, place)
        self.depth -= 1
        return result

    def _typed(self, hint: object, value: object, place: str) -> object:
        origin, inner = typing.get_origin(hint), typing.get_args(hint)
        if origin in (typing.Union, types.UnionType):
            return None if value is None else self._value(inner[0], value, place)
        if origin is list:
            if not isinstance(value, list):
                raise _unlike(place, value)
            return [self._value(inner[0], part, place) for part in value]
        if origin is dict:
            if not isinstance(value, dict):
                raise _unlike(place, value)
            return {self._shaped(k, place): self._value(inner[1], v, place + "[]")
                    for k, v in value.items()}  # fmt: skip
        if isinstance(hint, type) and dataclasses.is_dataclass(hint):
            return self._fields(hint, value, place)
        if hint is str:
            return self._shaped(value, place)
        return _number(hint, value, place)

    def _fields(self, hint: type, value: object, place: str) -> JsonObject:
        if not isinstance(value, dict):
            raise _unlike(place, value)
        known = _hints(hint)
        if issubclass(hint, _Union):
            _check(len(value) == 1 and set(value) <= set(known), place, value)
        name = hint.__name__
        cleaned: JsonObject = {
            k: self._field(name, k, known[k], v) for k, v in value.items() if k in known
        }
        if hint is schema.PayloadMeta:
            self._payload(cleaned)
        elif hint is schema.Node:
            self._node(cleaned)
        elif hint is schema.TensorMeta:
            for field in ("sizes", "strides"):
                _check(len(cleaned.get(field, ())) <= MAX_DIMENSIONS, f"TensorMeta.{field}", "")
        elif hint is schema.Graph:
            for argument in cleaned.get("inputs", ()):
                self._quoted(argument.get("as_string"))
        return cleaned

    def _field(self, owner: str, name: str, hint: object, value: object) -> object:
        if owner == "Node" and name == "metadata" and isinstance(value, dict):
            return {k: v for k, v in value.items() if k in KEPT and isinstance(v, str) and _text(v)}
        if name in DROPPED and owner != "Node":
            return DROPPED[name]
        return self._value(hint, value, f"{owner}.{name}")

    def _shaped(self, text: object, place: str) -> str:
        """`text`, or what it was understood as."""
        if not isinstance(text, str):
            raise _unlike(place, text)
        field = place.rpartition(".")[2]
        if place in ("Node.target", "Argument.as_operator"):
            self._target(text)
        elif field == "expr_str":
            return self._read(size_text, text, "expression")
        elif field in ("in_spec", "out_spec"):
            return self._read(lambda t: spec_text(t, field == "in_spec"), text, "tree spec")
        elif not FORMS.get(place, is_name)(text):
            self.refused.append(f"the name {_short(text)}")
        return text

    def _read(self, reader: Callable[[str], str], text: str, what: str) -> str:
        try:
            return reader(text)
        except Strange as error:
            self.refused.append(_short(error))
        except (ValueError, RecursionError) as error:
            self.refused.append(f"the {what} {_short(text)} ({_short(error)})")
        return ""

    def _quoted(self, text: str | None) -> None:
        if text is not None and not is_key(text):
            self.refused.append(f"the text {_short(text)}")

    def _target(self, target: str) -> None:
        reason = reason_against(target, self.operators)
        if reason == "unknown":
            self.unknown.append(target)
        elif reason:
            self.refused.append(_short(reason))

    def _node(self, node: JsonObject) -> None:
        """Are its arguments named and written as what it calls takes them?"""
        target, inputs = node.get("target"), node.get("inputs", ())
        if not isinstance(target, str) or self.refused or self.unknown:
            return
        given = [(i.get("name", ""), next(iter(i.get("arg") or {"": 0}))) for i in inputs]
        if target in HIGHER or HARMLESS.fullmatch(target):  # their names are written into source
            for name, _ in given:
                if name not in ("", "self") and not is_name(name):
                    self.refused.append(f"the name {_short(name)}")
        if unfit := unfit_argument(target, given):
            raise ValueError(f"`{_short(target)}` takes no `{_short(unfit)}`")

    def _payload(self, payload: JsonObject) -> None:
        self.payloads.append(payload)
        if payload.get("use_pickle"):
            self.pickled.add(payload.get("path_name", ""))


@cache
def _hints(owner: type) -> dict[str, object]:
    return typing.get_type_hints(owner, vars(schema))


def _number(hint: object, value: object, place: str) -> object:
    if hint is bool:
        _check(type(value) is bool, place, value)
    elif hint is float:
        plain = isinstance(value, (int, float)) and type(value) is not bool and abs(value) < LARGE
        odd = value in INFINITE or (type(value) is float and not isfinite(value))
        _check(plain or odd, place, value)
    else:  # an int, or the number of an enum
        good = type(value) is int and abs(value) <= LARGEST_INTEGER
        if good and isinstance(hint, type) and issubclass(hint, enum.IntEnum):
            good = value in set(hint)
        _check(good, place, value)
    return value


def _check(good: bool, place: str, value: object) -> None:
    if not good:
        raise _unlike(place, value)


def _unlike(place: str, value: object) -> ValueError:
    return ValueError(f"`{place}` can't be {_short(value)!r}")


def _short(value: object) -> str:
    return " ".join(str(value)[:60].split())
