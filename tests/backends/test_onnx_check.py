"""`model.onnx` of a stranger: what ONNX Runtime would open or load is refused unread."""

from __future__ import annotations

import random
from functools import cache

import pico
import pytest
from modelspeed.backends import onnxruntime as backend
from modelspeed.backends.onnx_check import check_onnx
from modelspeed.backends.onnxruntime import OnnxRuntime
from modelspeed.core.errors import MeasureError
from modelspeed.core.model_io import Inputs
from modelspeed.graph.capture import capture
from torch import nn

pytest.importorskip("onnxruntime")
onnx = pytest.importorskip("onnx")
X = pico.images(1)


@cache
def graph():
    return capture(nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU()).eval(), (X,))


@cache
def kept():
    return OnnxRuntime().kept_model(graph(), Inputs.of(X))["model.onnx"]


def external(model):
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../../etc/passwd")


def external_within(model):
    """In a constant of a branch of a node."""
    inner = onnx.helper.make_tensor("x", 1, [1], [0.0])
    inner.external_data.add(key="location", value="/etc/passwd")
    constant = onnx.helper.make_node("Constant", [], ["y"], value=inner)
    branch = onnx.helper.make_graph([constant], "g", [], [])
    model.graph.node.append(onnx.helper.make_node("If", ["c"], ["z"], then_branch=branch))


HOSTILE = {
    "external_data": external,
    "external_data in": external_within,
    "data_location": lambda m: setattr(m.graph.initializer[0], "data_location", 1),
    "library of their own": lambda m: setattr(m.graph.node[0], "domain", "com.microsoft"),
    "library of their own ": lambda m: m.opset_import.add(domain="my.library", version=1),
    "functions": lambda m: m.functions.add(name="f", domain=""),
    "metadata_props": lambda m: m.metadata_props.add(key="ort_config", value="{}"),
    "sparse_initializer": lambda m: m.graph.sparse_initializer.add(),
}


def test_what_was_written_passes_and_names_nothing_of_this_machine():
    check_onnx(kept())
    for text in (b"/tmp", b"/home", b"/work", b"site-packages", b".py"):
        assert text not in kept()


@pytest.mark.parametrize("kind", HOSTILE)
def test_what_a_stranger_writes_is_refused(kind, monkeypatch):
    model = onnx.load_from_string(kept())
    HOSTILE[kind](model)
    monkeypatch.setattr(backend, "OnnxSession", lambda *_: pytest.fail("ONNX Runtime read it"))
    with pytest.raises(MeasureError, match=kind.removesuffix("in").strip()):
        OnnxRuntime().reopened(graph(), Inputs.of(X), {"model.onnx": model.SerializeToString()})


def test_what_passes_is_never_more_than_onnxs_own_reader_finds():
    """Of damaged files: those that pass hold no external data, by ONNX's own account."""
    chance, passed = random.Random(0), 0
    for _ in range(300):
        damaged = bytearray(kept())
        for _ in range(3):
            damaged[chance.randrange(len(damaged))] = chance.randrange(256)
        try:
            check_onnx(bytes(damaged))
        except ValueError:
            continue
        passed += 1
        try:
            model = onnx.load_from_string(bytes(damaged))
        except Exception:  # protobuf finds more: strings that are not UTF-8
            continue
        assert not any(t.external_data for t in model.graph.initializer)
        assert {n.domain for n in model.graph.node} <= {"", "ai.onnx"}
    assert passed > 50


def test_damage_is_refused_in_words():
    for damaged in (kept()[:-5], b"\x3a\xff", b"\xff" * 20, b"\x3b\x3c"):
        with pytest.raises(ValueError):
            check_onnx(damaged)
    deep = b""
    for _ in range(40):  # a branch within a branch
        deep = field(1, field(5, field(6, deep)))
    with pytest.raises(ValueError, match="deeper"):
        check_onnx(field(7, deep))


def field(number, content):
    size, rest = b"", len(content)
    while rest > 127:
        size, rest = size + bytes([rest & 127 | 128]), rest >> 7
    return bytes([number << 3 | 2]) + size + bytes([rest]) + content
