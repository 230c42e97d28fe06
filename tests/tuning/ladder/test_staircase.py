"""Batch sizes grow for each rung until larger ones raise no throughput."""

from __future__ import annotations

from types import SimpleNamespace

import pico
import pytest
from modelspeed.core.errors import MeasureError
from modelspeed.core.model_io import Inputs
from modelspeed.core.records import Latency, Target
from modelspeed.graph.capture import capture
from modelspeed.tuning.ladder import staircase

ARTIFACT = SimpleNamespace(manifest={"inputs": [{"shape": [1, 1, 12, 12], "dtype": "float32"}]})
GRAPH = capture(pico.net(["residual"]), Inputs.of((pico.images(2),)))
ONE = capture(pico.net(["residual"]), Inputs.of((pico.images(1),)))


@pytest.fixture
def table(monkeypatch):
    """The table of rungs whose times by batch size are given."""

    def made(*times, batch=1, graph=GRAPH, fails=10**6):
        sizes = []

        def measured(runs, *, batch, **_):
            sizes.append((batch, len(runs)))
            if batch >= fails:
                raise MeasureError("too slow")
            by_module = [times[r.rung](batch) for r in runs]
            return [Latency(50.0, ms, ms, ms, (ms,) * 4001) for ms in by_module]

        monkeypatch.setattr(staircase, "measure_interleaved", measured)
        monkeypatch.setattr(
            staircase, "runner", lambda module, inputs: SimpleNamespace(rung=module.rung)
        )
        opened = [SimpleNamespace(module=SimpleNamespace(rung=i), graph=graph)
                  for i in range(len(times))]  # fmt: skip
        rows = staircase.table_of(opened, [ARTIFACT] * len(times), Target(batch=batch), 60.0, 0)
        return rows, sizes

    return made


def test_each_rung_stops_after_two_sizes_that_gain_too_little(table):
    rows, sizes = table(lambda b: 1.0 + b, lambda b: 8.0 + b)
    assert list(rows[0]) == [1, 2, 4, 8, 16, 32, 64] and list(rows[1])[-1] > 64
    assert sizes[0] == (1, 2) and sizes[-1][1] == 1


def test_the_size_that_it_was_tuned_for_is_measured_in_any_case(table):
    rows, _ = table(lambda b: 1.0 * b, batch=24)
    assert 24 in rows[0] and max(rows[0]) == 24


def test_one_disturbed_size_does_not_end_it(table):
    rows, _ = table(lambda b: (1.0 + 0.01 * b) * (1.0 + (b == 2)))
    assert max(rows[0]) > 64


def test_samples_are_picked_evenly(table):
    rows, _ = table(lambda b: 1.0 * b)
    assert len(rows[0][1]) == 1334


def test_a_size_that_is_too_much_ends_the_table_and_the_first_one_raises(table):
    rows, _ = table(lambda b: 1.0, fails=8)
    assert list(rows[0]) == [1, 2, 4]
    with pytest.raises(MeasureError):
        table(lambda b: 1.0, fails=1)


def test_a_call_of_seconds_is_not_made_twice_as_long(table):
    rows, _ = table(lambda b: 3000.0)
    assert list(rows[0]) == [1]
