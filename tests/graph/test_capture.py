from __future__ import annotations

import pytest
import torch
from modelspeed.core.errors import CaptureError
from modelspeed.graph.capture import capture
from torch import nn


class Named(nn.Module):
    def __init__(self, name):
        super().__init__()
        self.name = name
        setattr(self, name, nn.Linear(3, 3))

    def forward(self, x):
        return getattr(self, self.name)(x)


@pytest.mark.parametrize("name", ["code", "graph"])
def test_a_submodule_that_bears_a_name_of_torch_fx_is_refused_with_that_name(name):
    with pytest.raises(CaptureError, match=f"`{name}`"):
        capture(Named(name).eval(), (torch.randn(1, 3),))


def test_other_names_are_fine_and_so_is_a_graph_captured_again():
    module = capture(Named("coder").eval(), (torch.randn(1, 3),))
    x = torch.randn(2, 3)
    torch.testing.assert_close(capture(module, (x,))(x), module(x))
