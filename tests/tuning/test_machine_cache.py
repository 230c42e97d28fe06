from __future__ import annotations

import os
from dataclasses import dataclass, replace

import pico
import pytest
from modelspeed.backends import ranking
from modelspeed.backends.ranking import RankedRuntimes
from modelspeed.core.model_io import Inputs
from modelspeed.graph.capture import capture
from modelspeed.tuning.machine_cache import MachineCache

INPUTS = Inputs.of((pico.images(1),))


@dataclass(frozen=True)
class Choice:
    names: tuple[str, ...]


@pytest.fixture
def graph(tmp_path, monkeypatch):
    monkeypatch.setenv("MODELSPEED_CACHE", str(tmp_path / "cache"))
    return capture(pico.net([]), INPUTS)


def cache(graph, machine="m", sha="s", inputs=INPUTS):
    return MachineCache.of(machine, sha, graph, inputs)


def ask(cache, *names, lasts=True):
    return cache.kept("kernels", Choice, lambda: Choice(names), lambda _: lasts).names


def test_a_finding_is_found_again(graph):
    assert ask(cache(graph), "a") == ("a",)
    assert ask(cache(graph), "b") == ("a",)


def test_what_was_found_on_a_busy_machine_is_not_kept(graph):
    assert ask(cache(graph), "a", lasts=False) == ("a",)
    assert ask(cache(graph), "b") == ("b",)


def test_another_machine_checkpoint_graph_input_or_setting_finds_nothing(graph, monkeypatch):
    ask(cache(graph), "a")
    others = [
        cache(graph, machine="n"), cache(graph, sha="t"),
        cache(graph, inputs=Inputs.of((pico.images(2),))),
        cache(capture(pico.net(["residual"]), INPUTS)),
    ]  # fmt: skip
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
    others.append(cache(graph))
    for number, other in enumerate(others):
        assert ask(other, str(number)) == (str(number),)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"names": 3}', '{"names": [1]}', "null"])
def test_a_damaged_file_is_measured_again(graph, tmp_path, text):
    ask(cache(graph), "a")
    next((tmp_path / "cache").iterdir()).write_text(text)
    assert ask(cache(graph), "b") == ("b",)


def test_a_cache_that_cannot_be_written_stops_nothing(graph, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("MODELSPEED_CACHE", str(tmp_path / "file" / "cache"))
    assert ask(cache(graph), "a") == ("a",)


def test_a_pipe_in_its_place_is_not_waited_for(graph, tmp_path):
    ask(cache(graph), "a")
    path = next((tmp_path / "cache").iterdir())
    path.unlink()
    os.mkfifo(path)
    assert ask(cache(graph), "b") == ("b",)


def test_what_does_not_fit_this_package_is_found_again(graph):
    ask(cache(graph), "a runtime of long ago")
    found = cache(graph).kept(
        "kernels", Choice, lambda: Choice(("b",)), lambda _: True, lambda c: c.names == ("b",)
    )
    assert found.names == ("b",)


def test_a_ranking_in_which_a_runtime_failed_does_not_last(graph, monkeypatch):
    monkeypatch.setattr(ranking, "TOGETHER", 0.2)
    monkeypatch.setattr(ranking, "ready", lambda *_: "out of memory")
    found = ranking.rank_backends(graph, INPUTS, "lowered", (INPUTS,))
    assert found.names == ("plain",) and not found.lasts
    assert [row.reason for row in found.left_out] == ["out of memory"] * len(found.left_out)
    assert found.left_out and not replace(RankedRuntimes(("plain",)), quiet=False).lasts
