"""Convolutional nets that concatenate or split channels: every piece keeps units of its own."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .entry import IMAGE, conv, conv_bn, entry


@entry(IMAGE, {"stem": 4, "layers.0.2": 3, "layers.1.2": 3})
class DenseConcat(nn.Module):
    """DenseNet: every layer reads all before it, through a norm of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = conv(3, 4, 3)
        self.layers = nn.ModuleList(
            nn.Sequential(nn.BatchNorm2d(n), nn.ReLU(), conv(n, 3, 3)) for n in (4, 7)
        )
        self.last, self.head = nn.BatchNorm2d(10), nn.Linear(10, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for layer in self.layers:
            x = torch.cat([x, layer(x)], 1)
        return self.head(F.relu(self.last(x)).mean((2, 3)))


@entry(IMAGE, {"a": 4, "b.0": 3, "b.1": 5, "c": 6, "last": 7})
class Inception(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = conv(3, 4), nn.Sequential(conv(3, 3), conv(3, 5, 3))
        self.c, self.last = conv(3, 6), conv(18, 7, 3)
        self.head = nn.Linear(7, 4)

    def forward(self, x: Tensor) -> Tensor:
        pooled = F.avg_pool2d(x, 3, 1, 1)
        x = torch.cat([self.a(x), self.b(x), self.c(pooled), x], 1)
        return self.head(self.last(F.relu(x)).mean((2, 3)))


@entry(IMAGE, {"a": 6, "a#2": 2, "b": 6})
class SplitUneven(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.head = conv(3, 8), conv(6, 6), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        u, v = self.a(x).split([6, 2], 1)
        return self.head(torch.cat([self.b(u).relu(), v], 1).mean((2, 3)))


@entry(IMAGE, {"stem": 4, "stem#2": 4, "cat": 5})
class C2f(nn.Module):
    """YOLOv8's block: chunk, residual inside, concatenate all stages."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.inner, self.cat = conv(3, 8), conv(4, 4, 3), conv(12, 5)
        self.head = nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        parts = list(self.stem(x).chunk(2, 1))
        parts.append(parts[-1] + self.inner(parts[-1]).relu())
        return self.head(self.cat(torch.cat(parts, 1)).mean((2, 3)))


@entry(IMAGE, {"stem": 4, "cat": 6})
class Sppf(nn.Module):
    """One map pooled again and again, all stages concatenated."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.cat, self.head = conv(3, 4), conv(16, 6), nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        stages = [self.stem(x)]
        for _ in range(3):
            stages.append(F.max_pool2d(stages[-1], 5, 1, 2))
        return self.head(self.cat(torch.cat(stages, 1)).mean((2, 3)))


@entry(IMAGE, {"stem": 6, "wide": 4, "wider": 5, "pooled": 3, "join": 7})
class Aspp(nn.Module):
    """DeepLab: dilated branches and a pooled one that is stretched back."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.pooled = conv(3, 6, 3), conv(6, 3)
        self.wide, self.wider = conv(6, 4, 3, dilation=2), conv(6, 5, 3, dilation=3)
        self.join, self.out = conv(12, 7), conv(7, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        whole = F.relu(self.pooled(F.adaptive_avg_pool2d(x, 1)))
        whole = F.interpolate(whole, size=x.shape[2:], mode="bilinear", align_corners=False)
        x = torch.cat([self.wide(x), self.wider(x), whole], 1)
        return self.out(F.relu(self.join(x)))


@entry(IMAGE, {"one": 4, "two": 6, "up": 5, "join": 7})
class UNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = conv(3, 4, 3), conv(4, 6, 3)
        self.up, self.join = nn.ConvTranspose2d(6, 5, 2, 2), conv(9, 7, 3)
        self.out = conv(7, 2)

    def forward(self, x: Tensor) -> Tensor:
        fine = F.relu(self.one(x))
        coarse = F.relu(self.two(F.max_pool2d(fine, 2)))
        return self.out(F.relu(self.join(torch.cat([fine, self.up(coarse)], 1))))


@entry(IMAGE, {"one": 4, "two": 6, "lateral1": 5})
class FeaturePyramid(nn.Module):
    """All levels meet in one width; a head is shared by the levels, each an output."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = conv(3, 4, 3), conv(4, 6, 3, stride=2)
        self.lateral1, self.lateral2, self.head = conv(4, 5), conv(6, 5), conv(5, 2, 3)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        fine = F.relu(self.one(x))
        coarse = F.relu(self.two(fine))
        top = self.lateral2(coarse)
        low = self.lateral1(fine) + F.interpolate(top, scale_factor=2.0, mode="nearest")
        return self.head(low), self.head(top)


@entry(IMAGE, {"stem.0": 4, "main.0": 6})
class Ghost(nn.Module):
    """Half of the channels are cheap copies of the other half, by a depthwise convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.main = conv_bn(3, 4, 3), conv_bn(4, 6)
        self.cheap, self.head = conv_bn(6, 6, 3, groups=6), nn.Linear(12, 4)

    def forward(self, x: Tensor) -> Tensor:
        main = F.relu(self.main(F.relu(self.stem(x))))
        return self.head(torch.cat([main, F.relu(self.cheap(main))], 1).mean((2, 3)))


@entry(IMAGE, {"a": 6, "a#2": 2, "b": 5})
class Octave(nn.Module):
    """A high and a low frequency part, sliced out of one layer and pooled apart."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.head = conv(3, 8), conv(6, 5, 3), nn.Linear(7, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.a(x)
        high, low = self.b(x[:, :-2]), F.avg_pool2d(x[:, -2:], 2)
        return self.head(torch.cat([high.mean((2, 3)), low.mean((2, 3))], 1))


@entry(IMAGE, {"features.0": 5, "features.3": 6, "fc": 7})
class VggFlatten(nn.Module):
    """Flattened channels and pixels: a unit is a channel with all its pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            conv(3, 5, 3), nn.ReLU(True), nn.MaxPool2d(2),
            conv(5, 6, 3), nn.ReLU(True), nn.MaxPool2d(2), nn.Flatten(),
        )  # fmt: skip
        self.fc, self.head = nn.Linear(24, 7), nn.Linear(7, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.relu(self.fc(self.features(x))))
