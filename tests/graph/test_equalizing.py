from __future__ import annotations

import pytest
import torch
from modelspeed.adjusters.methods.equalization import equalization_edits
from modelspeed.adjusters.plan import Context
from modelspeed.adjusters.quantize import plan
from modelspeed.configs.recipe import make_step
from modelspeed.core.errors import EditError
from modelspeed.core.model_io import Inputs
from modelspeed.graph.capture import capture, clone
from modelspeed.graph.edits.apply import Equalize, apply, edits_from_json, edits_to_json
from modelspeed.graph.edits.equalizing import joints
from torch import nn

IMAGES = (64, 3, 12, 12)


class Unequal(nn.Module):
    """Every kind of joint: depthwise and grouped, a pool, a mean, two readers, linear layers."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, width, 3, padding=1)
        self.depth = nn.Conv2d(width, width, 3, padding=1, groups=width)
        self.point, self.act = nn.Conv2d(width, width, 1, bias=False), nn.PReLU(width)
        self.left, self.right = (nn.Conv2d(width, width, 3, groups=4) for _ in range(2))
        self.hidden, self.head = nn.Linear(width, width), nn.Linear(width, 5)

    def forward(self, x):
        x = torch.relu(self.depth(torch.relu(self.stem(x))))
        x = nn.functional.max_pool2d(self.act(self.point(x)), 2)
        x = torch.relu(self.left(x)) + torch.relu(self.right(x))
        return self.head(torch.relu(self.hidden(x.mean((2, 3)))))


def unequal():
    """The same function with channels of very unequal sizes in between, and images for it."""
    torch.manual_seed(0)
    module = capture(Unequal().eval(), (torch.randn(1, *IMAGES[1:]),))
    sizes = [tuple(torch.exp(1.5 * torch.randn(16)).tolist()) for _ in joints(module)]
    edits = [Equalize(j.maker.node.name, s) for j, s in zip(joints(module), sizes, strict=True)]
    return apply(module, edits), torch.randn(IMAGES)


@pytest.mark.parametrize("data", [True, False])
def test_outputs_stay_equal_and_what_a_sum_reads_is_left_alone(data):
    module, x = unequal()
    context = Context(module, Inputs.of((x[:1],)), [(x, None)] if data else None)
    made = edits_from_json(edits_to_json(equalization_edits(context, module, 64)))
    assert [j.maker.name for j in joints(module)] == ["stem", "depth", "point", "hidden"]
    scaled = apply(clone(module), made)
    assert not torch.equal(scaled.get_parameter("stem.weight"), module.get_parameter("stem.weight"))
    with torch.no_grad():
        wanted, found = module(x), scaled(x)
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5 * float(wanted.abs().max()))


@pytest.mark.parametrize("calibration", ["minmax", "mse"])
def test_int8_is_nearer_to_a_net_of_unequal_channels_once_they_are_equalized(calibration):
    module, x = unequal()
    context = Context(module, Inputs.of((x[:1],)), [(x, None)])
    usual = {"calibration": calibration}
    errors = []
    for equalize in (False, True):
        made = plan(context, make_step("quantize", equalize=equalize, **usual).settings)
        with torch.no_grad():
            errors.append(float((made.apply(clone(module))(x) - module(x)).norm()))
    assert errors[1] < 0.25 * errors[0]


class Between(nn.Module):
    def __init__(self, between) -> None:
        super().__init__()
        self.a, self.b, self.between = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1), between

    def forward(self, x):
        return self.b(self.between(self.a(x)))


@pytest.mark.parametrize(
    "between",
    [nn.ReLU6(), nn.SiLU(), nn.BatchNorm2d(4), nn.Softmax(1), nn.Flatten(0, 1),
     lambda x: x.transpose(1, 2).reshape(x.shape[0], 4, 3, 3), lambda x: x + 1],
)  # fmt: skip
def test_what_does_not_scale_with_its_input_is_no_joint(between):
    if isinstance(between, nn.Flatten):
        between = nn.Sequential(between, nn.Unflatten(0, (-1, 4)))
    module = capture(Between(between).eval(), (torch.randn(1, 3, 3, 3),))
    assert not joints(module)
    with pytest.raises(EditError, match="can be scaled"):
        apply(module, [Equalize("conv2d", (2.0,) * 4)])


@pytest.mark.parametrize(
    ("layer", "pool", "found"),
    [(nn.Linear(4, 4), nn.MaxPool1d(3, 1, 1), 0), (nn.Conv1d(4, 4, 1), nn.MaxPool1d(3, 1, 1), 1),
     (nn.Conv1d(4, 4, 1), nn.AvgPool2d(3, 1, 1), 0)],
)  # fmt: skip
def test_a_pool_hands_channels_on_only_if_it_takes_none_together(layer, pool, found):
    net = nn.Sequential(layer, pool, type(layer)(4, 4, *(1,) * isinstance(layer, nn.Conv1d)))
    assert len(joints(capture(net.eval(), (torch.randn(2, 4, 4),)))) == found


def test_a_flattened_image_is_read_channel_for_channel_only_if_it_is_one_pixel():
    def net(side):
        return nn.Sequential(
            nn.Conv2d(3, 4, 1), nn.AdaptiveAvgPool2d(side), nn.Flatten(), nn.Linear(4 * side**2, 2)
        ).eval()

    found = [len(joints(capture(net(side), (torch.randn(1, 3, 4, 4),)))) for side in (1, 2)]
    assert found == [1, 0]
