from __future__ import annotations

from types import SimpleNamespace

import pico
import pytest
import torch
from modelspeed.core.model_io import Inputs
from modelspeed.graph.capture import capture
from modelspeed.profiling.clocks import clock_for
from modelspeed.search.latency_tables import PASSES, LatencyTables, Store, points_for, shapes_of


def tables(tmp_path, monkeypatch, cost):
    table = LatencyTables.of("plain", "cpu", Store.of("f", "plain"))
    monkeypatch.setattr(LatencyTables, "_time", lambda self, shape, point: cost(*point))
    return table


def dense():
    inputs = Inputs((pico.images(),))
    shapes = shapes_of(capture(pico.net(["branches"]), inputs), inputs)
    return next(s for s in shapes.values() if s.layer.weight == "blocks.0.join.weight")


def test_points_between_the_sweeps_follow_the_product(tmp_path, monkeypatch):
    monkeypatch.setenv("MODELSPEED_CACHE", str(tmp_path))
    shape = dense()
    table = tables(tmp_path, monkeypatch, lambda i, o: 0.3 + 0.01 * i * o)
    wanted = [(shape, points_for(shape, (4, 8, 16), (2, 4, 8)))]
    assert table.measure(wanted, lambda n: None) == 6
    assert table.at(shape, 8, 4) == pytest.approx(0.3 + 0.01 * 32)


def test_a_second_run_times_nothing_and_a_broken_cache_is_no_error(tmp_path, monkeypatch):
    monkeypatch.setenv("MODELSPEED_CACHE", str(tmp_path))
    shape = dense()
    wanted = [(shape, points_for(shape, (4, 16), (2, 8)))]
    table = tables(tmp_path, monkeypatch, lambda i, o: float(i + o))
    assert table.measure(wanted, lambda n: None) == 4
    again = LatencyTables.of("plain", "cpu", Store.of("f", "plain"))
    assert again.measure(wanted, lambda n: None) == 0
    assert again.at(shape, 4, 8) == 12.0
    table.store.path.write_text("{broken")
    assert LatencyTables.of("plain", "cpu", Store.of("f", "plain")).times == {}


def test_real_layers_are_timed_and_wide_ones_take_longer(tmp_path, monkeypatch):
    monkeypatch.setenv("MODELSPEED_CACHE", str(tmp_path))
    inputs = Inputs((torch.randn(1, 1, 12, 12),))
    shapes = shapes_of(capture(pico.net(["depthwise", "grouped"]), inputs), inputs)
    for runtime in ("plain", "onednn_channels_last"):
        table = LatencyTables.of(runtime, "cpu", Store.of("g", runtime))
        for shape in shapes.values():
            if shape.layer.groups == 1 or shape.depthwise:
                table.measure([(shape, [shape.widths])], lambda n: None)
                assert table.at(shape, *shape.widths) > 0


def test_without_time_each_point_is_timed_once_and_not_kept(tmp_path, monkeypatch):
    timed = []
    monkeypatch.setattr(LatencyTables, "_time", lambda *row: timed.append(row[2]) or 1.0)
    shape = SimpleNamespace(key="k", widths=(8, 8))
    for fits, passes in ((lambda _: True, PASSES), (lambda _: False, 1)):
        timed.clear()
        store = Store(tmp_path / f"{passes}.json")
        tables = LatencyTables("plain", "cpu", store, clock_for("cpu"))
        assert tables.measure([(shape, [(4, 8), (8, 8)])], lambda _: None, fits) == 2
        assert len(timed) == 2 * passes and bool(store.read()) is (passes == PASSES)
