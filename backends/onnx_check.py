"""A stored `model.onnx`, checked before ONNX Runtime reads it: of ONNX's own operators alone, and
with all values in the file itself.

Its reader opens files that a tensor names (`external_data`) and runs operators of libraries that
were registered, some of which load programs. This walks through the bytes by protobuf's wire
format; a field that is not listed here is refused, whatever it may be.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

DOMAINS = (b"", b"ai.onnx")
DEEPEST = 16  # graphs within graphs
VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
ANY, NOTHING, DOMAIN, ZERO = "any", "refused", "domain", "zero"
Fields = dict[int, tuple[str, str]]  # number -> its name, and the message it holds or a rule
# https://github.com/onnx/onnx/blob/main/onnx/onnx.proto
_MODEL: Fields = {
    1: ("ir_version", ANY), 2: ("producer_name", ANY), 3: ("producer_version", ANY),
    4: ("domain", ANY), 5: ("model_version", ANY), 6: ("doc_string", ANY), 7: ("graph", "Graph"),
    8: ("opset_import", "Opset"), 14: ("metadata_props", NOTHING), 20: ("training_info", NOTHING),
    25: ("functions", NOTHING), 26: ("configuration", NOTHING),
}  # fmt: skip
_GRAPH: Fields = {
    1: ("node", "Node"), 2: ("name", ANY), 5: ("initializer", "Tensor"), 10: ("doc_string", ANY),
    11: ("input", ANY), 12: ("output", ANY), 13: ("value_info", ANY),
    14: ("quantization_annotation", NOTHING), 15: ("sparse_initializer", NOTHING),
    16: ("metadata_props", ANY),
}  # fmt: skip
_NODE: Fields = {
    1: ("input", ANY), 2: ("output", ANY), 3: ("name", ANY), 4: ("op_type", ANY),
    5: ("attribute", "Attribute"), 6: ("doc_string", ANY), 7: ("domain", DOMAIN),
    8: ("overload", ANY), 9: ("metadata_props", ANY), 10: ("device_configurations", NOTHING),
}  # fmt: skip
_ATTRIBUTE: Fields = {
    1: ("name", ANY), 2: ("f", ANY), 3: ("i", ANY), 4: ("s", ANY), 5: ("t", "Tensor"),
    6: ("g", "Graph"), 7: ("floats", ANY), 8: ("ints", ANY), 9: ("strings", ANY),
    10: ("tensors", "Tensor"), 11: ("graphs", "Graph"), 13: ("doc_string", ANY), 14: ("tp", ANY),
    15: ("type_protos", ANY), 20: ("type", ANY), 21: ("ref_attr_name", NOTHING),
    22: ("sparse_tensor", NOTHING), 23: ("sparse_tensors", NOTHING),
}  # fmt: skip
_TENSOR: Fields = {
    1: ("dims", ANY), 2: ("data_type", ANY), 3: ("segment", NOTHING), 4: ("float_data", ANY),
    5: ("int32_data", ANY), 6: ("string_data", ANY), 7: ("int64_data", ANY), 8: ("name", ANY),
    9: ("raw_data", ANY), 10: ("double_data", ANY), 11: ("uint64_data", ANY),
    12: ("doc_string", ANY), 13: ("external_data", NOTHING), 14: ("data_location", ZERO),
    16: ("metadata_props", ANY),
}  # fmt: skip
_MESSAGES: dict[str, Fields] = {
    "Model": _MODEL, "Graph": _GRAPH, "Node": _NODE, "Attribute": _ATTRIBUTE, "Tensor": _TENSOR,
    "Opset": {1: ("domain", DOMAIN), 2: ("version", ANY)},
}  # fmt: skip


class Field(NamedTuple):
    number: int
    wire: int
    value: int | memoryview  # BYTES and fixed ones as they lie there


def check_onnx(model: bytes) -> None:
    """Raises ValueError with what of `model` is refused."""
    _check(memoryview(model), "Model", 0)


def _check(message: memoryview, kind: str, depth: int) -> None:
    if depth > DEEPEST:
        raise ValueError("graphs nested deeper than any model's are")
    known = _MESSAGES[kind]
    for field in _fields(message):
        name, rule = known.get(field.number, (f"field {field.number}", NOTHING))
        if rule == NOTHING or (rule == ZERO and field.value != 0):
            raise ValueError(f"`{name}` in a {kind.lower()} of it")
        if rule == DOMAIN and (field.wire != BYTES or bytes(field.value) not in DOMAINS):
            raise ValueError(f"operators of a library of their own ({_text(field.value)})")
        if rule in _MESSAGES:
            if not isinstance(field.value, memoryview) or field.wire != BYTES:
                raise ValueError(f"`{name}` of another form")
            _check(field.value, rule, depth + (rule == "Graph"))


def _fields(message: memoryview) -> Iterator[Field]:
    at = 0
    while at < len(message):
        tag, at = _varint(message, at)
        number, wire = tag >> 3, tag & 7
        if wire == VARINT:
            value, at = _varint(message, at)
            yield Field(number, wire, value)
            continue
        if wire == BYTES:
            size, at = _varint(message, at)
        elif wire in (FIXED64, FIXED32):
            size = 8 if wire == FIXED64 else 4
        else:
            raise ValueError("bytes that are not a protobuf message")
        if at + size > len(message):
            raise ValueError("a field that is longer than the file")
        yield Field(number, wire, message[at : at + size])
        at += size


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    value = 0
    for place in range(10):
        if at + place >= len(message):
            raise ValueError("a number that ends with the file")
        byte = message[at + place]
        value |= (byte & 0x7F) << 7 * place
        if byte < 0x80:
            return value, at + place + 1
    raise ValueError("a number longer than any is")


def _text(value: int | memoryview) -> str:
    return bytes(value[:40]).decode("utf-8", "replace") if isinstance(value, memoryview) else ""
