from __future__ import annotations

import pico
import pytest
import torch
from modelspeed.graph.capture import capture
from modelspeed.graph.edits.apply import Cast, apply
from modelspeed.graph.edits.folding import foldable, folded
from modelspeed.graph.lowering.lower import lowerings


@pytest.mark.parametrize("block", sorted(pico.BLOCKS))
@pytest.mark.parametrize("batch", [1, 5])
def test_every_lowering_gives_the_same_outputs_and_leaves_inputs_alone(block, batch):
    module = capture(pico.net([block, "residual"]), (pico.images(1),))
    x = pico.images(batch)
    kept = x.clone()
    with torch.inference_mode():
        wanted = module(x)
        for name, build in lowerings(module, (pico.images(1),)).items():
            lowered = build()
            for _ in range(2):
                torch.testing.assert_close(lowered(x), wanted, rtol=1e-4, atol=1e-5, msg=name)
            assert torch.equal(x, kept), name


def test_lowering_does_not_change_its_argument():
    module = capture(pico.net(["residual"]), (pico.images(1),))
    before, weights = module.code, {k: v.clone() for k, v in module.state_dict().items()}
    for build in lowerings(module, (pico.images(1),)).values():
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


class Pointwise(torch.nn.Module):
    """1x1 convolutions in a row, with an activation, a residual, and both; and one of stride 2."""

    def __init__(self):
        super().__init__()
        self.up, self.down, self.same = (torch.nn.Conv2d(*s, 1) for s in ((1, 8), (8, 4), (4, 4)))
        self.last, self.apart = torch.nn.Conv2d(4, 4, 1), torch.nn.Conv2d(4, 4, 1, stride=2)

    def forward(self, x):
        y = self.down(torch.nn.functional.relu6(self.up(x)))
        y = y + self.same(y)
        return self.apart(torch.relu(y + self.last(y)))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_pointwise_convolutions_run_as_linear_layers_on_places(dtype):
    torch.manual_seed(0)
    module = capture(Pointwise().eval(), (pico.images(2),))
    if dtype == "bfloat16":
        if not torch.ops.mkldnn._is_mkldnn_bf16_supported():
            pytest.skip("no bfloat16 here")
        module = apply(module, [Cast(dtype)])
    build = lowerings(module, (pico.images(2),)).get("onednn_channels_last")
    if build is None:
        pytest.skip("no packed kernels here")
    lowered = build()
    kernels = [str(n.target) for n in lowered.graph.nodes if "pointwise" in str(n.target)]
    linear, binary = "mkldnn._linear_pointwise.default", "mkldnn._linear_pointwise.binary"
    assert kernels[:3] == [linear, linear, binary] and linear not in kernels[3:]
    for x in (pico.images(2), pico.images(5)):
        with torch.inference_mode():
            torch.testing.assert_close(
                lowered(x), module(x), rtol=2e-2, atol=2e-2 if dtype != "float32" else 1e-5
            )
