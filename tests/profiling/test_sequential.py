"""An early answer is wrong in at most about as many cases as it may be."""

from __future__ import annotations

import numpy as np
import pytest
from modelspeed.profiling.sequential import SequentialDrop

LIMIT, BATCH, MOST = 0.01, 32, 64


def answers(drop, disagreement, runs=300):
    """For each run the answer, and the examples that it took; looked at after each batch."""
    random, found = np.random.default_rng(0), []
    for _ in range(runs):
        test, taken = SequentialDrop(LIMIT), 0
        while taken < MOST * BATCH and test.above is None:
            taken += BATCH
            draw = random.random(BATCH)
            worse, better = draw < (disagreement + drop) / 2, draw > 1 - (disagreement - drop) / 2
            test.add(float(worse.mean() - better.mean()), BATCH)
        found.append((test.above, taken))
    return found


@pytest.mark.parametrize(
    ("drop", "disagreement", "wrong"),
    [(0.01, 0.01, True), (0.01, 0.03, True), (0.011, 0.1, False), (0.013, 0.02, False),
     (0.02, 0.05, False), (0.0, 0.02, True), (-0.01, 0.05, True)],
)  # fmt: skip
def test_looking_after_each_batch_does_not_spoil_the_answer(drop, disagreement, wrong):
    found = [above for above, _ in answers(drop, disagreement)]
    assert found.count(wrong) <= 0.03 * len(found)


def test_plain_cases_take_few_examples():
    for drop, above, most in ((0.2, True, 300), (0.05, True, 1100), (0.0, False, 520)):
        found = answers(drop, drop, 100)
        assert all(a in (above, None) for a, _ in found)
        assert np.mean([a == above for a, _ in found]) > 0.97
        assert np.mean([n for _, n in found]) < most


def test_no_difference_in_a_few_batches_is_not_taken_for_none_at_all():
    test = SequentialDrop(LIMIT)
    for _ in range(10):
        test.add(0.0, 32)
    assert test.above is None and test.mean == 0.0
    errors = SequentialDrop(LIMIT, step=0.0)  # where every example differs a little
    for _ in range(10):
        errors.add(1e-4, 32)
    assert errors.above is False
