from __future__ import annotations

import sys

import pytest
import torch
from fake_rungs import fake_ladder
from modelspeed.core.errors import MissingExtra
from modelspeed.runtime.ladder.prometheus import COUNTERS, GAUGES


def test_each_count_is_a_metric():
    client = pytest.importorskip("prometheus_client")
    ladder, _ = fake_ladder(answers=0)
    registry = client.CollectorRegistry()
    ladder.publish(registry)
    for budget in (12, 6, 6, 0.1):
        ladder(torch.zeros(1, 1), budget_ms=budget)
    text = client.generate_latest(registry).decode()
    for line in ('answers_total{rung="0-fake"} 1.0', 'answers_total{rung="1-fake"} 2.0',
                 'late_total{rung="3-fake"} 1.0', 'refused_total{reason="full"} 0.0',
                 "went_up_total 0.0", "queue 0.0"):  # fmt: skip
        assert f"modelspeed_ladder_{line}" in text
    for name in (*(row[0] + "_total" for row in COUNTERS), *(row[0] for row in GAUGES)):
        assert f"\nmodelspeed_ladder_{name}" in text
    assert registry.get_sample_value("modelspeed_ladder_slowdown") == pytest.approx(1, rel=0.2)


def test_without_the_package_the_error_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    monkeypatch.setitem(sys.modules, "prometheus_client.core", None)
    with pytest.raises(MissingExtra, match=r"modelspeed\[serve\]"):
        fake_ladder(answers=0)[0].publish()
