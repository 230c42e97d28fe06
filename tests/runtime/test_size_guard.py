"""Sizes that a graph was not captured for never reach it."""

from __future__ import annotations

import pytest
import torch
from modelspeed.core.errors import UsageError
from modelspeed.core.model_io import Inputs
from modelspeed.core.span import Span
from modelspeed.runtime.size_guard import SizeGuard

SPAN = Span(4, 32, 4, "s1")
INPUTS = Inputs(
    (torch.ones(1, 3, 8),),
    {"mask": torch.ones(1, 8), "table": torch.ones(5, 2)},
    (0, 0, None),
    ({2: SPAN}, {1: SPAN}, {}),
)


def call(x, mask, table=(5, 2)):
    calls = []
    run = SizeGuard(INPUTS).over(lambda *args, **kwargs: calls.append((args, kwargs)))
    for _ in range(2):  # the second look is into a set
        run(torch.ones(x), mask=torch.ones(mask), table=torch.ones(table))
    return len(calls)


def test_every_size_that_is_taken_reaches_the_graph():
    assert call((1, 3, 8), (1, 8)) == call((7, 3, 32), (7, 32)) == call((2, 3, 4), (2, 4)) == 2


@pytest.mark.parametrize(
    ("shapes", "sentence"),
    [
        (((1, 3, 36), (1, 36)), "`input 0` is 36 in axis 2; the artifact takes 4 to 32"),
        (((1, 3, 10), (1, 10)), "a multiple of 4"),
        (((1, 2, 8), (1, 8)), "`input 0` is 2 in axis 1; the artifact takes only 3"),
        (((1, 3, 8), (1, 12)), "`mask` axis 1 is 12 and `input 0` axis 2 is 8"),
        (((1, 3), (1, 8)), r"`input 0` has the shape \[1, 3\]; the artifact takes 3 axes"),
        (((1, 3, 8), (1, 8), (6, 2)), "`table` is 6 in axis 0; the artifact takes only 5"),
    ],
)
def test_any_other_is_refused_in_a_sentence(shapes, sentence):
    with pytest.raises(UsageError, match=sentence):
        call(*shapes)


@pytest.mark.parametrize(
    ("args", "kwargs"),
    [
        ((), {"x": (1, 3, 36), "mask": (1, 36), "table": (5, 2)}),
        (((1, 3, 8), (1, 12)), {"table": (5, 2)}),
        (((1, 3, 8),), {"table": (5, 2), "mask": (1, 12)}),
    ],
)
def test_inputs_are_told_however_a_call_names_them(args, kwargs):
    run = SizeGuard(INPUTS, ["x", "mask", "table"]).over(lambda *args, **kwargs: 1)
    good = run(torch.ones(1, 3, 8), mask=torch.ones(1, 8), table=torch.ones(5, 2))
    assert good == run(torch.ones(1, 3, 8), torch.ones(1, 8), torch.ones(5, 2)) == 1
    with pytest.raises(UsageError):
        run(*map(torch.ones, args), **{name: torch.ones(shape) for name, shape in kwargs.items()})
