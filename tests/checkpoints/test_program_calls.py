"""Operators that would read or write beside their tensors are none that a file may call."""

from __future__ import annotations

import pytest
from modelspeed.checkpoints.program_calls import reason_against, registered


@pytest.mark.parametrize(
    "name",
    [
        "aten.from_file.default", "aten._reshape_alias.default", "aten._reshape_alias_copy.default",
        "aten._reshape_alias_copy.out", "mkldnn.data_ptr.default",
        "static_runtime.reshape_copy.default",
    ],
)  # fmt: skip
def test_operators_that_trust_sizes_or_show_addresses_are_refused(name):
    assert "trusts sizes" in reason_against(f"torch.ops.{name}", registered())


def test_operators_of_models_are_not():
    for name in ("relu.default", "as_strided.default", "_unsafe_index.Tensor", "alias.default"):
        assert reason_against(f"torch.ops.aten.{name}", registered()) == ""
