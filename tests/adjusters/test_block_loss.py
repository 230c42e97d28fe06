from __future__ import annotations

import pico
import pytest
import torch
from modelspeed.adjusters.methods.block_loss import block_losses
from modelspeed.adjusters.plan import Context
from modelspeed.core.errors import DataError
from modelspeed.graph.blocks import residual_blocks
from modelspeed.graph.capture import capture
from torch import nn

DATA = [(torch.randn(64, 6, generator=torch.Generator().manual_seed(s)), None) for s in range(3)]


class Stack(nn.Module):
    """Of its three blocks the first does nothing, the second is linear, the third is neither."""

    def __init__(self, in_place=False):
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b, self.c = (nn.Linear(6, 6) for _ in range(3))
        self.d, self.head = nn.Linear(6, 6), nn.Linear(6, 4)
        nn.init.zeros_(self.a.weight), nn.init.zeros_(self.a.bias)
        self.add = torch.Tensor.add_ if in_place else torch.add

    def forward(self, x):
        x = self.add(self.a(x), x)
        x = self.add(self.b(x), x)
        x = self.add(self.d(torch.relu(self.c(x))), x)
        return self.head(x)


def losses(model, batches=DATA):
    module = capture(model, (torch.randn(2, 6),))
    blocks = residual_blocks(module)
    return [block_losses(Context(module, (torch.randn(2, 6),), batches), blocks)[b.total]
            for b in blocks]  # fmt: skip


def test_what_a_linear_layer_can_make_up_for_costs_next_to_nothing():
    nothing, linear, other = losses(Stack())
    assert nothing == pytest.approx(0.0, abs=1e-9)
    assert 0 <= linear < 0.05 * other


def test_sums_in_place_are_seen_before_they_are_overwritten():
    assert losses(Stack(in_place=True)) == pytest.approx(losses(Stack()), rel=1e-4)


def test_images_have_their_channels_after_the_batch():
    module = capture(pico.net(["residual"]), (pico.images(),))
    data = [(pico.images(16, s), None) for s in range(2)]
    found = block_losses(Context(module, (pico.images(),), data), residual_blocks(module))
    assert found and all(v > 0 for v in found.values())


def test_it_wants_data():
    with pytest.raises(DataError):
        losses(Stack(), None)
