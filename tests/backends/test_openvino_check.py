"""`model.openvino.xml` of a stranger: what OpenVINO would open or load is refused unread."""

from __future__ import annotations

from functools import cache

import pico
import pytest
from modelspeed.backends import openvino_model
from modelspeed.backends.openvino import OpenVino
from modelspeed.backends.openvino_check import check_ir
from modelspeed.core.errors import MeasureError
from modelspeed.core.model_io import Inputs
from modelspeed.graph.capture import capture
from torch import nn

pytest.importorskip("openvino")
X = pico.images(1)


@cache
def kept():
    graph = capture(nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU()).eval(), (X,))
    return tuple(OpenVino().kept_model(graph, Inputs.of(X)).values())


HOSTILE = {
    "another opset": (b'version="opset1"', b'version="/tmp/extension.so"'),
    "another operator": (b'type="Convolution"', b'type="Evil"'),
    "state kept between calls": (b'type="Convolution"', b'type="ReadValue"'),
    "an entity": (b"<net ", b'<!DOCTYPE net [<!ENTITY a SYSTEM "file:///etc/passwd">]><net '),
    "a stylesheet": (b"<net ", b'<?xml-stylesheet href="x"?><net '),
    "a path": (b"<data ", b'<data weights_path="/etc/passwd" '),
    "a library": (b"<rt_info>", b'<rt_info><attribute name="library" value="x.so"/>'),
    "a graph within": (b"<rt_info>", b"<body/><rt_info>"),
    "values beyond the end": (b'offset="0"', b'offset="99999999"'),
    "values before the start": (b'offset="0"', b'offset="-8"'),
    "no net": (b"<net ", b"<nets "),
    "another encoding": (b"<net ", b"\xff\xfe<net "),
}


def test_what_was_written_passes_and_names_nothing_of_this_machine():
    xml, weights = kept()
    check_ir(xml, len(weights))
    for text in (b"/tmp", b"/home", b"/work", b"site-packages", b".py"):
        assert text not in xml


@pytest.mark.parametrize("kind", HOSTILE)
def test_what_a_stranger_writes_is_refused(kind, monkeypatch):
    old, new = HOSTILE[kind]
    xml, weights = kept()
    assert old in xml
    monkeypatch.setattr(openvino_model, "_core", lambda: pytest.fail("OpenVINO read it"))
    with pytest.raises(MeasureError, match="holds"):
        openvino_model.opened(xml.replace(old, new, 1), weights)


def test_damage_is_refused_in_words():
    xml, weights = kept()
    for damaged in (b"", b"<net", xml[: len(xml) // 2], b"<net>" * 50_000):
        with pytest.raises(MeasureError):
            openvino_model.opened(damaged, weights)
    with pytest.raises(MeasureError, match="beyond the end"):
        openvino_model.opened(xml, weights[:-64])
