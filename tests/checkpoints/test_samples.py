from __future__ import annotations

import pytest
import torch
from modelspeed.checkpoints.samples import draw_inputs
from modelspeed.core.errors import UsageError

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
