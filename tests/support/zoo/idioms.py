"""What real libraries do that broke something once, each as small as it gets.

Found by `benchmarks/real_models.py`; benchmarks/RESULTS.md names the models.
"""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .entry import IMAGE, SOUND, TOKENS, conv, conv_bn, entry


@entry(IMAGE, {"stem.0": 8, "inner.0": 6})
class ActivatedSums(nn.Module):
    """Residual sums that end in an activation other than ReLU (YOLOv10, FastViT, RepVGG)."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.inner, self.back = conv_bn(3, 8, 3), conv_bn(8, 6), conv_bn(6, 8, 3)
        self.wide, self.head = conv(8, 8, 3), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = F.silu(x + self.back(F.gelu(self.inner(x))))
        return self.head(F.gelu(self.wide(x) + x).mean((2, 3)))


@entry(IMAGE, {"stem": 2, "stem#2": 6, "part": 2})
class PartialConvolution(nn.Module):
    """A convolution written over a part of the channels, in place (FasterNet)."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.part, self.head = conv(3, 8, 3), conv(2, 2, 3), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        x[:, :2] = self.part(x[:, :2])
        return self.head(x.mean((2, 3)))


@entry(SOUND, {"stem": 8})
class Keypoints(nn.Module):
    """A head that decodes every third value in place (pose heads of Ultralytics)."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.head = nn.Conv1d(3, 8, 3, padding=1), nn.Conv1d(8, 6, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.head(F.relu(self.stem(x))).clone()
        y[:, 2::3] = y[:, 2::3].sigmoid()
        y[:, 0::3] = y[:, 0::3] * 2.0 + torch.arange(16)
        return y


class Mixed(nn.Module):
    """A convolution whose weight is a mixture of experts, one for each image of the batch."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.inputs, self.outputs = inputs, outputs
        self.weight = nn.Parameter(torch.zeros(3, outputs * inputs))

    def forward(self, x: Tensor, shares: Tensor) -> Tensor:
        n, c, h, w = x.shape
        weight = (shares @ self.weight).view(n * self.outputs, self.inputs, 1, 1)
        y = F.conv2d(x.reshape(1, n * c, h, w), weight, None, groups=n)
        return y.permute(1, 0, 2, 3).view(n, self.outputs, h, w)


@entry(
    IMAGE,
    {"bn": 8, "route": 3},
    frozen={"stem.weight": "has a group for every row"},
)
class CondConv(nn.Module):
    """Every image has a weight of its own, in one convolution of as many groups (EfficientNet)."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.route, self.mixed = conv(3, 6, 3), nn.Linear(6, 3), Mixed(6, 8)
        self.bn, self.head = nn.BatchNorm2d(8), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        shares = torch.sigmoid(self.route(x.mean((2, 3))))
        return self.head(F.relu(self.bn(self.mixed(x, shares))).mean((2, 3)))


@entry(IMAGE, {"stem": 6, "value": 4})
class DeformableAttention(nn.Module):
    """Every head reads its own features where its own grid says (RT-DETR)."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.value, self.places = conv(3, 6, 3), conv(6, 8), nn.Linear(6, 2 * 5 * 2)
        self.out = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        n, _, h, w = x.shape
        value = self.value(x).flatten(2).transpose(1, 2).view(n, h * w, 2, 4)
        value = value.flatten(2).transpose(1, 2).reshape(n * 2, 4, h, w)
        grid = self.places(x[:, :, 0].transpose(1, 2)).tanh().view(n, w, 2, 5, 2)
        grid = grid.transpose(1, 2).flatten(0, 1)
        read = F.grid_sample(value, grid, align_corners=False)
        return self.out(read.sum(-1).view(n, 8, w).transpose(1, 2))


@entry(IMAGE, {"stem": 6})
class CachedAnchors(nn.Module):
    """Anchors are kept for the next image of the same size (RT-DETR)."""

    places: ClassVar[list[int]] = []
    anchors = torch.empty(0)

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.head = conv(3, 6, 3), conv(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.head(F.relu(self.stem(x)))
        if self.places != list(x.shape[2:]):
            self.anchors = torch.arange(8.0)[:, None] + torch.arange(8.0)
            self.places = list(x.shape[2:])
        return x + self.anchors


@entry(IMAGE, {"stem": 6})
class InstalledOnce(nn.Module):
    """The first call installs a hook and remembers that it did (transformers' output capture)."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.head = conv(3, 6, 3), conv(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        if not hasattr(self, "installed"):
            self.stem.register_forward_hook(lambda _module, _inputs, output: output * 2)
            self.installed = True
        return self.head(F.relu(self.stem(x)))


@entry(TOKENS, {"up": 8, "qkv": 4})
class ZeroedBias(nn.Module):
    """A part of a bias is zeroed in a copy, in place (the keys of torchvision's Swin V2)."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.qkv, self.head = nn.Linear(12, 8), nn.Linear(8, 12), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        bias = self.qkv.bias.clone()
        bias[4:8].zero_()
        q, k, v = F.linear(F.relu(self.up(x)), self.qkv.weight, bias).chunk(3, -1)
        return self.head(q * k + v)
