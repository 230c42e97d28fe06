from __future__ import annotations

import pytest
import torch
from modelspeed.checkpoints.samples import draw_inputs, reproduces, sample_of, specs_of
from modelspeed.core.errors import UsageError
from modelspeed.profiling.closeness import tolerance_of

SPECS = [{"shape": [2, 3], "dtype": "float32"}, {"shape": [4], "dtype": "int64"}]


def test_the_same_seed_draws_the_same_and_another_differs():
    first, again, other = (draw_inputs(SPECS, s) for s in (1, 1, 2))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first[0], other[0])


def test_integers_are_zero_or_one_and_dtypes_are_kept():
    floats, ints = draw_inputs(SPECS, 0)
    assert floats.dtype == torch.float32 and ints.dtype == torch.int64
    assert set(ints.tolist()) <= {0, 1}


def test_an_unknown_dtype_is_named():
    with pytest.raises(UsageError, match="`float33`"):
        draw_inputs([{"shape": [1], "dtype": "float33"}], 0)


def test_integers_stay_within_their_range_and_names_become_keywords():
    specs = [{"shape": [500], "dtype": "int64", "range": [3, 5], "name": "ids"}]
    drawn = draw_inputs([*SPECS, *specs], 0)
    assert drawn.names == (None, None, "ids")
    assert set(drawn.kwargs["ids"].tolist()) == {3, 4, 5}


def test_inputs_like_others_can_be_drawn():
    drawn = draw_inputs([*SPECS, {"shape": [50], "dtype": "int64", "range": [0, 9]}], 0)
    again = draw_inputs(specs_of(drawn), 3)
    assert [(x.shape, x.dtype) for x in again] == [(x.shape, x.dtype) for x in drawn]
    assert int(again[2].max()) <= int(drawn[2].max())


def test_what_is_rounded_to_few_bits_may_differ_by_a_step():
    whole, half = torch.ones(2), torch.ones(2, dtype=torch.bfloat16)
    assert tolerance_of([whole]) < 0.01 < tolerance_of([whole, half])
    assert reproduces(whole * 1.02, whole, tolerance_of([half]))
    assert not reproduces(whole * 1.2, whole, tolerance_of([half]))


def test_a_sample_holds_values_of_every_output():
    outputs = {"a": torch.zeros(1000), "b": (torch.ones(3), torch.full((2,), 2))}
    found = sample_of(outputs).tolist()
    assert set(found) == {0.0, 1.0, 2.0} and len(found) <= 256


@pytest.mark.parametrize("size", [1e-3, 1.0, 1e4])
def test_a_sample_is_judged_by_the_size_of_its_values(size):
    wanted = torch.linspace(-size, size, 9)
    assert reproduces(wanted + 5e-4 * size, wanted)
    assert not reproduces(wanted + 5e-3 * size, wanted)
    assert not reproduces(wanted.flip(0), wanted) and not reproduces(wanted[:3], wanted)
    assert reproduces(torch.full((3,), 1e-9), torch.zeros(3))
    assert not reproduces(torch.full((3,), 1e-5), torch.zeros(3))
    odd = torch.tensor([float("nan"), float("inf"), size])
    assert reproduces(odd, odd)
