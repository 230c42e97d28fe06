from __future__ import annotations

import torch
from modelspeed.profiling import notices
from modelspeed.profiling.notices import Load, subnormal_weights


def test_normal_zero_and_half_precision_weights_are_no_warning() -> None:
    weights = {
        "a": torch.tensor([0.0, 1.0, -1e-37]),
        "b": torch.tensor([1e-7], dtype=torch.float16),
        "c": torch.tensor([1]),
    }
    assert subnormal_weights(weights) is None


def test_subnormal_weights_are_counted_and_named() -> None:
    notice = subnormal_weights({"a": torch.ones(2), "fc.weight": torch.tensor([1e-40, -1e-41, 1])})
    assert notice is not None
    assert notice.code == "subnormal_weights"
    assert "2 weights" in notice.seen and "`fc.weight`" in notice.seen
    assert "flush_subnormals" in notice.remedy


def test_threads_up_to_the_cores_are_no_warning() -> None:
    assert notices.threads_over_cores(2, 2) is None
    notice = notices.threads_over_cores(8, 2)
    assert notice is not None and "`--threads 2`" in notice.remedy


def test_an_idle_core_is_no_contention() -> None:
    start = Load(0.0, 0.0, 0.0, 4)
    assert notices.cpu_contention(start, Load(10.0, 10.0, 20.0, 4)) is None
    assert notices.cpu_contention(start, Load(10.0, 20.0, 39.9, 4)) is not None
    assert notices.cpu_contention(None, start) is None


def test_our_own_work_is_no_contention() -> None:
    assert notices.cpu_contention(Load(0, 0, 0, 2), Load(10.0, 20.0, 20.1, 2)) is None
