"""The top of a ladder beside the goals of other rungs."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
from modelspeed.configs.load import parse_recipe
from modelspeed.core.records import Closeness, Latency, Target, Verification
from modelspeed.profiling.statistics import compare_samples
from modelspeed.search.choice import Standing
from modelspeed.search.contenders import LOSSLESS
from modelspeed.tuning.contest import Lossless
from modelspeed.tuning.finishing import Finished
from modelspeed.tuning.ladder.rungs import RungBuilder
from sample_record import record

RECIPE = parse_recipe("version: 1\nadjust: [prune, fold_batchnorm]\n", "recipe", Path())


def exactly(ms):
    return Latency(50.0, ms, ms, ms, tuple(ms * (1 + 1e-4 * (i % 7)) for i in range(60)))


@pytest.mark.parametrize("speedup", [2.0, 4.0, 8.0])
def test_a_disturbed_verification_of_the_top_does_not_say_that_it_meets_every_goal(speedup):
    """It takes 6 of 8 ms; its fresh process met a machine of which no figure can be believed."""
    target = Target(speedup=speedup)
    session = SimpleNamespace(
        recipe=RECIPE,
        job=SimpleNamespace(target=target),
        quiet_ms=8.0,
        reference=exactly(8.0),
        is_by_answers=False,
    )
    lossless = Lossless(exactly(6.0), "plain", ())
    builder = RungBuilder(session, record(), lossless, Path(), Path())
    before, after = exactly(16.0), exactly(12.0)
    ratio = compare_samples(before.samples_ms, after.samples_ms, 50.0)
    checked = Verification(
        before, after, ratio, Closeness(0.0, 1e-3, (1,)), None, 8.0, disturbed=True
    )
    top = Finished(LOSSLESS, None, None, checked, Standing(1.0))
    builder._known[LOSSLESS] = top

    contest = builder._contest(session, target)
    assert contest.finished[LOSSLESS].standing.share == pytest.approx(speedup * 6 / 8, 0.01)
