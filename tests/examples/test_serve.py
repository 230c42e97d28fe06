"""The serving example's options; tests/runtime/test_serving.py runs it with Ray."""

from __future__ import annotations

import runpy
import socket
import sys
from argparse import Namespace
from pathlib import Path

import pytest
from modelspeed.core.errors import MissingExtra, UsageError

EXAMPLE = runpy.run_path(str(Path(__file__).parents[2] / "examples" / "serve" / "serve.py"))


@pytest.mark.parametrize(("text", "wanted"), [("2", (2, 2)), ("1..8", (1, 8))])
def test_replicas_are_one_number_or_two(text, wanted):
    assert EXAMPLE["replicas_of"](text) == wanted


@pytest.mark.parametrize("text", ["", "two", "1..", "..3", "1..2..3"])
def test_other_replicas_are_refused_in_a_sentence(text):
    with pytest.raises(UsageError, match="`--replicas` is"):
        EXAMPLE["replicas_of"](text)


def test_replicas_that_share_the_cores_have_fewer_threads(monkeypatch, capsys):
    record = Namespace(machine=Namespace(threads=4))
    monkeypatch.setitem(EXAMPLE["threads_of"].__globals__, "read_ladder", lambda folder: record)
    found = [EXAMPLE["threads_of"](Path("ladder"), most, 8) for most in (1, 2, 4, 50)]
    assert found == [4, 4, 2, 1]
    assert "each has 2 threads, while the ladder was measured with 4" in capsys.readouterr().err


def test_without_ray_nothing_starts(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.setitem(sys.modules, "ray.serve", None)
    with pytest.raises(MissingExtra, match=r"modelspeed\[serve\]"):
        EXAMPLE["run"](Namespace())


def test_a_port_in_use_is_said_before_ray_starts():
    with socket.create_server(("127.0.0.1", 0)) as used, pytest.raises(UsageError, match="--port"):
        EXAMPLE["check_port"]("127.0.0.1", used.getsockname()[1])
    EXAMPLE["check_port"]("127.0.0.1", 0)
