"""Nets for small machines: depthwise convolutions, shuffles, re-parametrized branches."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .entry import IMAGE, conv, conv_bn, entry


@entry(IMAGE, {"stem.0": 6, "point.0": 8})
class DepthwiseSeparable(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.depth = conv_bn(3, 6, 3), conv_bn(6, 6, 3, groups=6)
        self.point, self.head = conv_bn(6, 8), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu6(self.depth(F.relu6(self.stem(x))))
        return self.head(F.relu6(self.point(x)).mean((2, 3)))


@entry(IMAGE, {"stem.0": 5, "wide.0": 10})
class InvertedResidual(nn.Module):
    """MobileNetV2: narrow, wide and depthwise, narrow again without activation, added."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.wide = conv_bn(3, 5, 3), conv_bn(5, 10)
        self.depth, self.narrow = conv_bn(10, 10, 3, groups=10), conv_bn(10, 5)
        self.head = nn.Linear(5, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        y = F.relu6(self.depth(F.relu6(self.wide(x))))
        return self.head((x + self.narrow(y)).mean((2, 3)))


@entry(IMAGE, {"stem.0": 4, "wide.0": 8, "se.0": 2})
class MbConv(nn.Module):
    """EfficientNet: squeeze-excite between the depthwise and the narrowing convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.wide = conv_bn(3, 4, 3), conv_bn(4, 8)
        self.depth, self.narrow = conv_bn(8, 8, 5, groups=8), conv_bn(8, 4)
        self.se = nn.Sequential(conv(8, 2), nn.SiLU(inplace=True), conv(2, 8))
        self.drop, self.head = nn.Dropout(0.2), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = F.silu(self.stem(x))
        y = F.silu(self.depth(F.silu(self.wide(x))))
        y = y * torch.sigmoid(self.se(y.mean((2, 3), keepdim=True)))
        return self.head(self.drop(F.adaptive_avg_pool2d(x + self.narrow(y), 1).flatten(1)))


@entry(IMAGE, {"stem.0": 6, "out.0": 5})
class MobileOne(nn.Module):
    """Depthwise branches and a mere batch norm, summed as if they were one convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.scale = conv_bn(3, 6, 3), conv_bn(6, 6, groups=6)
        self.skip = nn.BatchNorm2d(6)
        self.branches = nn.ModuleList(conv_bn(6, 6, 3, groups=6) for _ in range(2))
        self.out, self.head = conv_bn(6, 5), nn.Linear(5, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        y = self.skip(x) + self.scale(x)
        for branch in self.branches:
            y = y + branch(x)
        return self.head(self.out(F.relu(y)).mean((2, 3)))


@entry(IMAGE, {"a": 4, "b": 8})
class Shuffle(nn.Module):
    """Channel shuffle: the same position of both halves goes together."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.head = conv(3, 8), conv(8, 8, 3), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.b(shuffled(self.a(x))).mean((2, 3)))


@entry(IMAGE, {"a": 4, "b": 2, "mix": 6})
class ShuffleNetV1(nn.Module):
    """A shuffle between two grouped convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = conv(3, 8), conv(8, 8, groups=2)
        self.mix, self.head = conv(8, 12, groups=2), nn.Linear(12, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.mix(shuffled(self.b(F.relu(self.a(x))))).mean((2, 3)))


@entry(IMAGE, {"stem": 2, "stem#2": 2, "stem#3": 4, "right.0.0.0": 5, "right.1.0.0": 5, "last": 6})
class ShuffleNetV2(nn.Module):
    """Half the channels pass, half are convolved; concatenated, shuffled, twice."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = conv(3, 8, 3)
        self.right = nn.ModuleList(nn.Sequential(conv_bn(4, 5), conv_bn(5, 4)) for _ in range(2))
        self.last, self.head = conv(8, 6), nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for branch in self.right:
            left, right = x.chunk(2, 1)
            x = shuffled(torch.cat([left, F.relu(branch(right))], 1))
        return self.head(self.last(x).mean((2, 3)))


def shuffled(x: Tensor) -> Tensor:
    n, c, h, w = x.shape
    return x.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)


@entry(IMAGE, {"pw1": 16}, frozen={"stem.weight": "normalizes over it"})
class ConvNeXt(nn.Module):
    """The norm over channels comes after a depthwise convolution, so these stay whole."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.dw = nn.Conv2d(3, 8, 2, 2), conv(8, 8, 3, groups=8)
        self.norm, self.pw1, self.pw2 = nn.LayerNorm(8), nn.Linear(8, 16), nn.Linear(16, 8)
        self.gamma = nn.Parameter(torch.ones(8))
        self.head = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        y = self.norm(self.dw(x).permute(0, 2, 3, 1))
        y = (self.gamma * self.pw2(F.gelu(self.pw1(y)))).permute(0, 3, 1, 2)
        return self.head((x + y).mean((-2, -1)))


@entry(IMAGE, {"pw1": 12}, frozen={"stem.weight": "normalizes over it"})
class ConvNeXtV2(nn.Module):
    """Global response norm divides by the mean over channels, which its scale makes up for."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.pw1, self.pw2 = conv(3, 6), nn.Linear(6, 12), nn.Linear(12, 6)
        self.gamma, self.beta = (nn.Parameter(torch.zeros(1, 1, 1, 12)) for _ in range(2))
        self.norm, self.head = nn.LayerNorm(6), nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).permute(0, 2, 3, 1)
        y = F.gelu(self.pw1(self.norm(x)))
        size = y.norm(p=2, dim=(1, 2), keepdim=True)
        y = self.gamma * (y * (size / (size.mean(-1, keepdim=True) + 1e-6))) + self.beta + y
        return self.head((x + self.pw2(y)).mean((1, 2)))


class Response(nn.Module):
    """Global response norm of images, as timm writes it."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight, self.bias = (nn.Parameter(torch.zeros(width)) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        size = x.norm(p=2, dim=(2, 3), keepdim=True)
        share = size / (size.mean(dim=1, keepdim=True) + 1e-6)
        bias, weight = (p.view(1, -1, 1, 1) for p in (self.bias, self.weight))
        return x + torch.addcmul(bias, weight, x * share)


@entry(IMAGE, {"stem": 8, "up": 12})
class ResponseNorm(nn.Module):
    """Channels first; a second norm on what a batch norm gives."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.bn, self.first = conv(3, 8, 3), nn.BatchNorm2d(8), Response(8)
        self.up, self.second, self.head = conv(8, 12), Response(12), nn.Linear(12, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(F.relu(self.bn(self.stem(x))))
        return self.head(self.second(F.silu(self.up(x))).mean((2, 3)))


@entry(IMAGE, {}, frozen={"stem.weight": "reduces over it", "up.weight": "reduces over it"})
class ResponseWithoutSilence(nn.Module):
    """An ignored channel still counts in the mean: sigmoid(0) is 0.5; one scale serves twice."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.first, self.head = conv(3, 8, 3), Response(8), nn.Linear(8, 4)
        self.up, self.second = conv(8, 8), Response(8)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(torch.sigmoid(self.stem(x)))
        x = self.second(self.second(F.gelu(self.up(x))))
        return self.head(x.mean((2, 3)))


@entry(IMAGE, {"stem": 6, "mlp.0": 9})
class PoolFormer(nn.Module):
    """Pooling mixes the pixels; a 1x1 convolution of ones over the pixels is not a channel."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.bn = conv(3, 6, 3), nn.BatchNorm2d(6)
        self.mlp, self.head = nn.Sequential(conv(6, 9), nn.GELU(), conv(9, 6)), nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        y = self.bn(x)
        x = x + F.avg_pool2d(y, 3, 1, 1, count_include_pad=False) - y
        return self.head((x + self.mlp(x)).mean((2, 3)))


@entry(IMAGE, {"a": 4, "b": 4})
class ShuffleOperator(nn.Module):
    """torch's own channel shuffle; then even and odd channels part."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.head = conv(3, 8), conv(8, 8, 3), nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.b(F.channel_shuffle(self.a(x), 2))
        return self.head((x[:, ::2] * x[:, 1::2]).mean((2, 3)))
