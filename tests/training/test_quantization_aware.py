from __future__ import annotations

import pytest
import torch
from modelspeed.adjusters.plan import Context
from modelspeed.adjusters.quantize import plan
from modelspeed.configs.recipe import make_step
from modelspeed.core.model_io import Inputs
from modelspeed.graph.capture import capture, clone
from modelspeed.training.quantization_aware import store_integers, trainable
from torch import nn


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.hidden = nn.Conv2d(1, 4, 3), nn.Linear(4 * 36, 16)
        self.head = nn.Linear(16, 3)

    def forward(self, x):
        return self.head(torch.relu(self.hidden(torch.relu(self.conv(x)).flatten(1))))


def in_integers(scheme):
    torch.manual_seed(0)
    x = torch.randn(64, 1, 8, 8)
    module = capture(Net().eval(), (x[:1],))
    context = Context(module, Inputs.of((x[:1],)), [(x, None)])
    settings = make_step("quantize", scheme=scheme, group=16).settings
    return module, plan(context, settings).apply(clone(module)), x


@pytest.mark.parametrize("scheme", ["int8_static", "int8_dynamic", "int8_weight", "int4_weight"])
def test_a_graph_is_trained_in_its_integers_and_keeps_what_it_learned(scheme):
    module, integer, x = in_integers(scheme)
    form = trainable(integer)
    with torch.no_grad():
        wanted, start = 0.7 * module(x), integer(x)
        torch.testing.assert_close(form(x), start)
    weights = [p.requires_grad_() for p in form.parameters() if p.dim() > 1]
    optimizer = torch.optim.Adam(weights, lr=1e-3)
    for _ in range(60):
        optimizer.zero_grad()
        (form(x) - wanted).square().mean().backward()
        assert all(p.grad is not None and bool(p.grad.any()) for p in weights)
        optimizer.step()
    kinds = {k: v.dtype for k, v in integer.state_dict().items()}
    store_integers(form, integer)
    assert {k: v.dtype for k, v in integer.state_dict().items()} == kinds
    with torch.no_grad():
        torch.testing.assert_close(integer(x), form(x))
        before, after = ((y - wanted).norm() for y in (start, integer(x)))
    assert after < 0.3 * before


def test_a_graph_without_integers_is_its_own_form():
    module, _, _ = in_integers("int8_weight")
    assert trainable(module) is module
    before = {k: v.clone() for k, v in module.state_dict().items()}
    store_integers(module, module)
    assert all(torch.equal(v, before[k]) for k, v in module.state_dict().items())
