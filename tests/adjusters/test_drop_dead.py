from __future__ import annotations

import copy

import pico
import pytest
import torch
from modelspeed.adjusters import drop_dead
from modelspeed.adjusters.drop_dead import plan
from modelspeed.adjusters.plan import Context
from modelspeed.core.model_io import Inputs
from modelspeed.graph.capture import capture, clone
from modelspeed.graph.edits.apply import apply
from torch import nn
from torch.nn.utils import prune as torch_prune

INPUTS = Inputs((pico.images(),))


def context(net, inputs=INPUTS):
    return Context(capture(net.eval(), inputs), inputs)


def dropped(net, inputs=INPUTS):
    """The shapes of weights after the plan, which must have left the outputs as they were."""
    before = context(net, inputs)
    kept = {k: v.clone() for k, v in before.module.state_dict().items()}
    made = plan(before, None)
    assert all(torch.equal(v, kept[k]) for k, v in before.module.state_dict().items())
    after = apply(clone(before.module), made.edits)
    drawn = inputs.map(lambda x: 3 * torch.randn(5, *x.shape[1:]))
    with torch.no_grad():
        torch.testing.assert_close(drawn.call(after), drawn.call(net), rtol=1e-4, atol=1e-5)
    return {k: tuple(v.shape) for k, v in after.state_dict().items()}, made


class Pair(nn.Module):
    """conv -> batch norm -> activation -> conv: the usual place of a channel."""

    def __init__(self, activation=torch.relu):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.norm = nn.Conv2d(1, 6, 3, bias=False), nn.BatchNorm2d(6)
        self.second, self.activation = nn.Conv2d(6, 4, 3, padding=1), activation
        nn.init.normal_(self.norm.bias)
        self.norm.running_mean.normal_()

    def forward(self, x):
        return self.second(self.activation(self.norm(self.first(x)))).mean((2, 3))


class Sum(nn.Module):
    """Two layers make a channel together."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b, self.last = nn.Conv2d(1, 6, 3), nn.Conv2d(1, 6, 3), nn.Conv2d(6, 3, 1)

    def forward(self, x):
        return self.last(torch.relu(self.a(x) + self.b(x))).mean((2, 3))


def zero(*tensors, at):
    with torch.no_grad():
        for tensor in tensors:
            tensor[at] = 0


def scale_only(net):
    zero(net.norm.weight, at=[1])
    net.norm.bias.data[1] = 0.5


def row_only(net):
    zero(net.first.weight, net.norm.bias, at=[1])
    net.norm.running_mean.data[1] = -1.0


def sigmoid(net):
    zero(net.norm.weight, net.norm.bias, at=[1])
    net.activation = torch.sigmoid


@pytest.mark.parametrize("spoil", [lambda net: None, scale_only, row_only, sigmoid])
def test_a_channel_that_says_anything_stays(spoil):
    net = Pair()
    spoil(net)
    shapes, made = dropped(net)
    assert made.edits == () and shapes["first.weight"] == (6, 1, 3, 3)
    if spoil.__name__ != "<lambda>":
        assert "same for every input but not zero" in made.left_alone[0].reason


def test_a_channel_that_only_the_example_leaves_at_zero_stays():
    net = Pair()
    net.norm.bias.data[1] = -1e6
    assert dropped(net)[1].edits == ()


def test_a_channel_that_another_layer_makes_too_stays():
    net = Sum()
    zero(net.a.weight, at=[1])
    # Far below zero on every example, and yet not dead.
    net.a.bias.data[1] = -1e3
    assert dropped(net)[1].edits == ()


def test_a_column_of_one_reader_of_two_stays():
    net = nn.Sequential(pico.net(["branches"]))
    zero(net[0].blocks[0].a.weight, at=(slice(None), [2]))
    assert dropped(net)[1].edits == ()


def test_the_models_own_outputs_stay():
    net = Pair()
    zero(net.second.weight, net.second.bias, at=[0])
    assert dropped(net)[1].edits == ()


def test_what_the_outputs_miss_after_all_is_not_dropped(monkeypatch):
    net = Pair()
    zero(net.norm.weight, net.norm.bias, at=[2])
    monkeypatch.setattr(drop_dead, "_same", lambda *_: False)
    made = plan(context(net), None)
    assert made.edits == () and "outputs differ" in made.left_alone[0].reason


@pytest.mark.parametrize("shift", [0.0, -0.7])
def test_a_scale_driven_to_zero_takes_its_channel_along(shift):
    net = Pair()
    zero(net.norm.weight, at=[1, 4])
    net.norm.bias.data[[1, 4]] = shift
    shapes, _ = dropped(net)
    assert shapes["first.weight"][0] == shapes["norm.running_mean"][0] == 4
    assert shapes["second.weight"] == (4, 4, 3, 3)


def test_masks_of_torch_prune_take_their_channels_along():
    net = pico.net(["residual", "depthwise"])
    conv = net.blocks[0].conv1
    torch_prune.ln_structured(conv, "weight", 0.5, n=2, dim=0)
    torch_prune.remove(conv, "weight")
    norm = net.blocks[0].bn1
    norm.running_mean.zero_()
    norm.bias.data.zero_()
    shapes, _ = dropped(net)
    assert shapes["blocks.0.conv1.weight"][0] == shapes["blocks.0.conv2.weight"][1] == 4
    assert shapes["stem.weight"][0] == 8


def test_a_depthwise_layer_follows_what_feeds_it():
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(1, 6, 1, bias=False), nn.ReLU(inplace=True),
        nn.Conv2d(6, 6, 3, groups=6, bias=False), nn.BatchNorm2d(6), nn.ReLU6(inplace=True),
        nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(24, 3),
    )  # fmt: skip
    zero(net[0].weight, at=[1])
    zero(net[2].weight, at=[4])
    assert dropped(net)[0]["7.weight"] == (3, 16)


def test_what_made_only_unread_units_goes_with_them():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(9, 8), nn.GELU(), nn.Linear(8, 7), nn.GELU(), nn.Linear(7, 2))
    zero(net[4].weight, at=(slice(None), [0, 3]))
    with torch.no_grad():
        net[2].weight[1:3, 5] = net[2].weight[4:, 5] = 0
    shapes, _ = dropped(net, Inputs((torch.randn(2, 9),)))
    assert shapes["2.weight"] == (5, 7) and shapes["0.weight"] == (7, 9)


def test_one_unit_of_a_dead_layer_stays():
    net = copy.deepcopy(Pair())
    zero(net.norm.weight, net.norm.bias, at=slice(None))
    shapes, made = dropped(net)
    assert shapes["first.weight"][0] == 1 and made.edits
