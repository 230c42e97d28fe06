"""A model that normalizes its input in place and its graph, which leaves it alone, are equal."""

from __future__ import annotations

import torch
from modelspeed.core.model_io import Inputs
from modelspeed.graph.capture import capture
from modelspeed.profiling.closeness import PlainOutputs
from torch import Tensor, nn


class Normalizes(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x.sub_(0.45).div_(0.2))


def test_a_model_that_writes_into_its_inputs_equals_its_graph() -> None:
    model, inputs = Normalizes().eval(), Inputs.of(torch.randn(2, 4))
    graph, before = capture(model, inputs), inputs[0].clone()
    wanted = PlainOutputs.of(model, (inputs,), 1e-3, coarse=False, fresh=True)
    assert wanted.closeness(graph).holds
    assert torch.equal(inputs[0], before)


def test_a_runtime_that_writes_into_its_inputs_is_seen() -> None:
    model, inputs = Normalizes().eval(), Inputs.of(torch.randn(2, 4))
    wanted = PlainOutputs.of(capture(model, inputs), (inputs,), 1e-3, coarse=False)
    assert not wanted.closeness(model).holds
