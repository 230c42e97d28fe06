from __future__ import annotations

from typing import Any

import pytest
from modelspeed.configs.machine import MachineFlags, resolve_target
from modelspeed.configs.recipe import Recipe, TargetSpec
from modelspeed.core.errors import UsageError
from modelspeed.core.records import Target

RECIPE = Recipe(target=TargetSpec(ms=5.0, percentile=90.0, batch=4))


def test_the_recipe_sets_the_target_where_no_flag_does() -> None:
    assert resolve_target(RECIPE, MachineFlags()) == Target(5.0, None, 90.0, 4, "cpu", 0, "auto")


def test_flags_win_over_the_recipe() -> None:
    flags = MachineFlags("cuda:1", 3, "plain", 50.0, 1)
    assert resolve_target(RECIPE, flags, 2.0) == Target(2.0, None, 50.0, 1, "cuda:1", 3, "plain")


def test_without_any_budget_only_lossless_work_is_asked_for() -> None:
    assert resolve_target(Recipe(), MachineFlags()).ms is None


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        ({"device": "gpu"}, "`--device` is 'gpu'"),
        ({"device": "cuda:"}, "`cuda:N`"),
        ({"runtime": "lowred"}, "did you mean `lowered`"),
        ({"threads": 0}, "`--threads` is 0"),
        ({"batch": 0}, "`--batch` is 0"),
        ({"percentile": 100.0}, "`--percentile` is 100"),
        ({"percentile": float("nan")}, "`--percentile` is nan"),
        ({"seed": -1}, "`--seed` is -1"),
    ],
)
def test_an_impossible_flag_is_a_usage_error(flags: dict[str, Any], says: str) -> None:
    with pytest.raises(UsageError) as caught:
        MachineFlags(**flags)
    assert says in str(caught.value)


@pytest.mark.parametrize("ms", [0.0, -1.0, float("nan"), float("inf")])
def test_a_budget_must_be_a_finite_positive_time(ms: float) -> None:
    with pytest.raises(UsageError, match="`--target-ms`"):
        resolve_target(RECIPE, MachineFlags(), ms)


def test_a_flag_of_one_kind_replaces_a_target_of_the_other() -> None:
    found = resolve_target(RECIPE, MachineFlags(), None, 2.0)
    assert (found.ms, found.speedup) == (None, 2.0)


@pytest.mark.parametrize(("ms", "speedup"), [(2.0, 2.0), (None, 1.0), (None, float("nan"))])
def test_impossible_speedups_are_usage_errors(ms: float | None, speedup: float) -> None:
    with pytest.raises(UsageError, match="--target-speedup"):
        resolve_target(RECIPE, MachineFlags(), ms, speedup)
