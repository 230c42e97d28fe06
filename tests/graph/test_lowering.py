from __future__ import annotations

import pico
import pytest
import torch
from modelspeed.graph.capture import capture
from modelspeed.graph.folding import foldable, folded
from modelspeed.graph.lowering import variants


@pytest.mark.parametrize("block", sorted(pico.BLOCKS))
@pytest.mark.parametrize("batch", [1, 5])
def test_every_lowering_gives_the_same_outputs_and_leaves_inputs_alone(block, batch):
    module = capture(pico.net([block, "residual"]), (pico.images(1),))
    x = pico.images(batch)
    kept = x.clone()
    with torch.inference_mode():
        wanted = module(x)
        for name, build in variants(module, (pico.images(1),)).items():
            lowered = build()
            for _ in range(2):
                torch.testing.assert_close(lowered(x), wanted, rtol=1e-4, atol=1e-5, msg=name)
            assert torch.equal(x, kept), name


def test_lowering_does_not_change_its_argument():
    module = capture(pico.net(["residual"]), (pico.images(1),))
    before, weights = module.code, {k: v.clone() for k, v in module.state_dict().items()}
    for build in variants(module, (pico.images(1),)).values():
        build()
    assert module.code == before
    assert all(torch.equal(v, weights[k]) for k, v in module.state_dict().items())


def test_a_batch_norm_after_a_layer_that_others_read_is_not_folded():
    class Shared(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.bn = torch.nn.Conv2d(1, 4, 3), torch.nn.BatchNorm2d(4)

        def forward(self, x):
            y = self.conv(x)
            return self.bn(y) + y

    module = capture(Shared().eval(), (pico.images(),))
    assert not any(foldable(n) for n in module.graph.nodes)


def test_folding_follows_the_formula():
    weight, gamma = torch.ones(2, 1), torch.tensor([2.0, 3.0])
    beta, mean, var = torch.tensor([1.0, 0.0]), torch.tensor([4.0, 0.0]), torch.tensor([3.0, 0.0])
    w, b = folded(weight, None, (gamma, beta, mean, var), 1.0)
    assert w.tolist() == [[1.0], [3.0]]
    assert b.tolist() == [-3.0, 0.0]
