"""Counts of a ladder as Prometheus metrics, read when they are scraped: calls pay nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

from ...core.extras import extra
from .counts import Stats

PREFIX = "modelspeed_ladder"
# Name, help, label, and the values by label.
COUNTERS: tuple[tuple[str, str, str, Callable[[Stats], dict[str, float]]], ...] = (
    ("answers", "Answers, by rung.", "rung", lambda s: dict(s.answers)),
    ("late", "Answers after their budget or deadline, by rung.", "rung", lambda s: dict(s.late)),
    ("busy_seconds", "Time in which a rung ran.", "rung",
     lambda s: {name: ms / 1000.0 for name, ms in s.busy_ms.items()}),
    ("refused", "Requests refused, by reason.", "reason", lambda s: dict(s.refused)),
    ("failed", "Requests whose inputs raised.", "", lambda s: {"": s.failed}),
    ("dropped", "Requests that were canceled before they ran.", "", lambda s: {"": s.dropped}),
    ("cascaded", "Answers asked of a cascade.", "", lambda s: {"": s.cascaded}),
    ("went_up", "Answers of a cascade that its high rung gave.", "", lambda s: {"": s.went_up}),
)  # fmt: skip
GAUGES: tuple[tuple[str, str, Callable[[Stats], float]], ...] = (
    ("queue", "Requests that wait.", lambda s: s.queue),
    ("slowdown", "Slowdown of the machine against when it was measured.", lambda s: s.slowdown),
    ("slowdown_spread", "Standard deviation of the slowdown's logarithm.", lambda s: s.spread),
)


class StatsCollector:
    """Metrics for a registry that asks for them."""

    def __init__(self, stats: Callable[[], Stats], core: ModuleType) -> None:
        self._stats, self._core = stats, core

    def collect(self) -> Iterator[Any]:
        stats = self._stats()
        for name, text, label, values in COUNTERS:
            family = self._core.CounterMetricFamily(
                f"{PREFIX}_{name}", text, labels=[label] if label else []
            )
            for key, value in values(stats).items():
                family.add_metric([key] if label else [], value)
            yield family
        for name, text, value_of in GAUGES:
            yield self._core.GaugeMetricFamily(f"{PREFIX}_{name}", text, value=value_of(stats))


def register(stats: Callable[[], Stats], registry: Any = None) -> None:
    """Show `stats()` in `registry`, or in the one of `prometheus_client`. Raises MissingExtra."""
    core = extra("prometheus_client.core", "Ladder.publish")
    (core.REGISTRY if registry is None else registry).register(StatsCollector(stats, core))
