"""Which steps stay: what brings nothing but speed must be faster, and exact enough."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from modelspeed.adjusters.plan import Plan
from modelspeed.configs.recipe import make_step
from modelspeed.core.records import Comparison
from modelspeed.tuning.evaluation import Drop
from modelspeed.tuning.steps import StepRunner

FOUND = {
    "faster": Comparison(1.5, 1.4, 1.6, "faster"),
    "slower": Comparison(0.5, 0.4, 0.6, "slower"),
    "same": Comparison(1.0, 0.9, 1.1, "no significant change"),
}


@pytest.mark.parametrize(
    ("name", "must_be_faster", "found", "accuracy", "reason"),
    [
        ("quantize", True, "faster", 0.89, None),
        ("quantize", True, "faster", 0.5, "more than `limits.max_drop`"),
        ("quantize", True, "same", 0.9, "no faster"),
        ("quantize", True, "slower", 0.9, "measured slower"),
        ("quantize", False, "same", 0.9, None),
        ("precision", True, "slower", None, "measured slower"),
        ("precision", True, "faster", None, None),
        ("channels_last", False, "slower", 0.9, "measured slower"),
        ("channels_last", False, "same", 0.9, None),
        ("drop_blocks", False, "slower", 0.1, None),
    ],
)
def test_a_step_goes_where_it_does_not_help(name, must_be_faster, found, accuracy, reason):
    step, plan = make_step(name), Plan(must_be_faster=must_be_faster)
    drop = None if accuracy is None else Drop(0.9, accuracy, 100, 0.9 - accuracy > 0.02)
    run = StepRunner(SimpleNamespace(recipe=None), None)
    said = run._too_slow(step, plan, FOUND[found]) or run._too_lossy(step, plan, drop)
    assert said is None if reason is None else reason in said
