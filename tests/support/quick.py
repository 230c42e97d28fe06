"""Measurements that take no time, for runs whose figures nobody reads."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from modelspeed.core.records import Comparison, Latency
from modelspeed.tuning import bench, multiples, results, runtimes
from modelspeed.tuning.verify import Verification

FASTER = Verification(
    Latency(50.0, 2.0, 1.9, 2.1), Latency(50.0, 1.0, 0.9, 1.1), Comparison(2.0, 1.9, 2.1, "faster")
)


def hasten(set_to: Callable[[Any, str, Any], None]) -> None:
    """`set_to` is `setattr`, or a monkeypatch's. The fresh process isn't started either."""
    for room in (bench, multiples, runtimes):
        for name in ("measure", "measure_interleaved"):
            if hasattr(room, name):
                set_to(room, name, partial(_short, getattr(room, name)))
    set_to(bench, "undisturbed", lambda attempt, *_, **__: attempt())
    set_to(results, "verify", lambda *_: FASTER)


def _short(measure: Callable[..., Any], *args: Any, **options: Any) -> Any:
    return measure(*args, **{**options, "max_seconds": 0.05, "min_seconds": 0.0})
