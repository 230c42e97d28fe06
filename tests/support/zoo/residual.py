"""Convolutional nets that add: units on both sides of a sum go together."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .entry import IMAGE, conv, conv_bn, entry


@entry(IMAGE, {"a.0": 8, "b.0": 6})
class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = conv_bn(3, 8, 3), conv_bn(8, 6, 3), conv_bn(6, 8, 3)
        self.head = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.a(x))
        return self.head(F.relu(x + self.c(F.relu(self.b(x)))).mean((2, 3)))


@entry(IMAGE, {"stem": 8, "inner.0": 6})
class PreactResidual(nn.Module):
    """Norm and activation come before the convolution; the sum is normed once more at the end."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.bn, self.inner = conv(3, 8, 3), nn.BatchNorm2d(8), conv_bn(8, 6, 3)
        self.out, self.last, self.head = conv(6, 8, 3), nn.BatchNorm2d(8), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = x + self.out(F.relu(self.inner(F.relu(self.bn(x)))))
        return self.head(F.adaptive_avg_pool2d(F.relu(self.last(x)), 1).flatten(1))


@entry(IMAGE, {"stem.0": 4, "reduce.0": 5, "mix.0": 6, "expand.0": 16})
class Bottleneck(nn.Module):
    """ResNet-50's block: the shortcut is projected where width and stride change."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.reduce = conv_bn(3, 4, 3), conv_bn(4, 5)
        self.mix, self.expand = conv_bn(5, 6, 3, stride=2), conv_bn(6, 16)
        self.down, self.head = conv_bn(4, 16, stride=2), nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(F.relu(self.stem(x)), 3, 1, 1)
        y = self.expand(F.relu(self.mix(F.relu(self.reduce(x)))))
        return self.head(F.relu(y + self.down(x)).mean((2, 3)))


@entry(IMAGE, {"stem.0": 8, "reduce.0": 4})
class ResNeXt(nn.Module):
    """A convolution of four groups: a unit is one group."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.reduce = conv_bn(3, 8, 3), conv_bn(8, 8)
        self.grouped, self.expand = conv_bn(8, 8, 3, groups=4), conv_bn(8, 8)
        self.head = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        y = F.relu(self.grouped(F.relu(self.reduce(x))))
        return self.head(F.relu(x + self.expand(y)).mean((2, 3)))


@entry(IMAGE, {"reduce.0": 4, "grouped.0": 4, "se.1": 3, "expand.0": 6})
class RegNetY(nn.Module):
    """Grouped bottleneck with squeeze-excite and a projected shortcut."""

    def __init__(self) -> None:
        super().__init__()
        self.reduce, self.grouped = conv_bn(3, 8), conv_bn(8, 8, 3, stride=2, groups=2)
        self.se = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), conv(8, 3), nn.ReLU(), conv(3, 8), nn.Sigmoid()
        )
        self.expand, self.down = conv_bn(8, 6), conv_bn(3, 6, stride=2)
        self.head = nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.grouped(F.relu(self.reduce(x))))
        y = self.expand(y * self.se(y))
        return self.head(F.relu(y + self.down(x)).mean((2, 3)))


@entry(IMAGE, {"stem": 6, "b.three.0": 5})
class RepVgg(nn.Module):
    """3x3, 1x1 and identity branch, each with its batch norm, summed."""

    class Block(nn.Module):
        def __init__(self, inputs: int, outputs: int) -> None:
            super().__init__()
            self.three, self.one = conv_bn(inputs, outputs, 3), conv_bn(inputs, outputs)
            self.bn = nn.BatchNorm2d(inputs)
            self.identity = inputs == outputs

        def forward(self, x: Tensor) -> Tensor:
            y = self.three(x) + self.one(x)
            return F.relu(y + self.bn(x) if self.identity else y)

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.a, self.b = conv(3, 6, 3), self.Block(6, 6), self.Block(6, 5)
        self.head = nn.Linear(5, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.b(self.a(self.stem(x))).mean((2, 3)))


@entry(IMAGE, {"stem": 2, "stem#2": 2, "stem#3": 2, "stem#4": 2, "out": 5, "inner.2": 2})
class Res2Net(nn.Module):
    """Four chunks, each convolved after the one before is added: a unit is one place in all."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.out = conv(3, 8), conv(8, 5)
        self.inner = nn.ModuleList(conv(2, 2, 3) for _ in range(3))
        self.head = nn.Linear(5, 4)

    def forward(self, x: Tensor) -> Tensor:
        first, *others = self.stem(x).chunk(4, 1)
        done = [first]
        for layer, chunk in zip(self.inner, others, strict=True):
            done.append(F.relu(layer(chunk + done[-1] if len(done) > 1 else chunk)))
        return self.head(self.out(torch.cat(done, 1)).mean((2, 3)))


@entry(IMAGE, {"fine": 4, "coarse": 6, "join": 5})
class HrNet(nn.Module):
    """Two resolutions that exchange: interpolated up, strided down."""

    def __init__(self) -> None:
        super().__init__()
        self.fine, self.coarse = conv(3, 4, 3), conv(3, 6, 3, stride=2)
        self.up, self.down = conv(6, 4), conv(4, 6, 3, stride=2)
        self.join, self.head = conv(10, 5), nn.Linear(5, 4)

    def forward(self, x: Tensor) -> Tensor:
        fine, coarse = F.relu(self.fine(x)), F.relu(self.coarse(x))
        size = fine.shape[-2:]
        mixed = fine + F.interpolate(self.up(coarse), size=size, mode="bilinear")
        coarse = F.relu(coarse + self.down(fine))
        wide = F.interpolate(coarse, scale_factor=2, mode="nearest")
        return self.head(self.join(torch.cat([F.relu(mixed), wide], 1)).mean((2, 3)))


@entry(IMAGE, {"stem": 6, "inner": 5})
class StochasticDepth(nn.Module):
    """A branch is dropped at random while training; nothing is left of that in eval mode."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.inner, self.out = conv(3, 6, 3), conv(6, 5, 3), conv(5, 6, 3)
        self.drop, self.head = nn.Dropout2d(0.3), nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        y = self.drop(self.out(F.relu(self.inner(x))))
        if self.training:
            y = y * torch.bernoulli(torch.full((len(y), 1, 1, 1), 0.8))
        return self.head((x + y).mean((2, 3)))


@entry(IMAGE, {"stem": 4, "inner": 5, "out": 4})
class PaddedShortcut(nn.Module):
    """The shortcut gains channels of zeros (ResNet-A, PyramidNet); they go like any others."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.inner, self.out = conv(3, 4, 3), conv(4, 5), conv(5, 8)
        self.head = conv(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        return self.head(F.pad(x, (0, 0, 0, 0, 2, 2)) + self.out(F.relu(self.inner(x))))
