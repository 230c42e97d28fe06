"""Other spaces than images: sound, video, points; and what moves pixels about."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .entry import IMAGE, POINTS, SOUND, VIDEO, conv, entry


@entry(SOUND, {"a": 6, "b": 7})
class Sound(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.norm = nn.Conv1d(3, 6, 5, 2), nn.BatchNorm1d(6)
        self.b, self.head = nn.Conv1d(6, 7, 3), nn.Linear(7, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.b(F.max_pool1d(F.relu(self.norm(self.a(x))), 2)).mean(-1))


@entry(SOUND, {"stem": 5, "signal": 6})
class WaveNet(nn.Module):
    """Gated dilated convolutions, padded on the left, with a residual."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.out = nn.Conv1d(3, 5, 1), nn.Conv1d(6, 5, 1)
        self.signal, self.gate = (nn.Conv1d(5, 6, 2, dilation=2) for _ in range(2))
        self.head = nn.Conv1d(5, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        y = F.pad(x, (2, 0))
        return self.head(x + self.out(torch.tanh(self.signal(y)) * torch.sigmoid(self.gate(y))))


@entry(VIDEO, {"a": 4, "b": 6})
class Video(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.norm = nn.Conv3d(3, 4, 3, padding=1), nn.BatchNorm3d(4)
        self.b, self.head = nn.Conv3d(4, 6, 1), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool3d(F.relu(self.norm(self.a(x))), 2)
        return self.head(F.adaptive_avg_pool3d(self.b(x), 1).flatten(1))


@entry(IMAGE, {"stem": 8, "up": 5})
class Transposed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.up = conv(3, 8, 3, stride=2), nn.ConvTranspose2d(8, 5, 2, 2)
        self.norm, self.head = nn.BatchNorm2d(5), conv(5, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.relu(self.norm(self.up(F.relu(self.stem(x))))))


@entry(IMAGE, {"stem": 4})
class PixelShuffle(nn.Module):
    """Four channels become the four pixels of one."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.head = conv(3, 16, 3), conv(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.pixel_shuffle(self.stem(x), 2))


@entry(IMAGE, {"stem": 5, "next": 6})
class PixelUnshuffle(nn.Module):
    """One channel becomes four: its pixels in turn."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.next, self.head = conv(3, 5, 3), conv(20, 6), conv(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.relu(self.next(F.pixel_unshuffle(self.stem(x), 2))))


@entry(IMAGE, {"stem": 5, "next": 6})
class Focus(nn.Module):
    """Every second pixel, four times, concatenated (YOLOv5)."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.next, self.head = conv(3, 5, 3), conv(20, 6), conv(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        parts = [x[..., i::2, j::2] for i in (0, 1) for j in (0, 1)]
        return self.head(F.relu(self.next(torch.cat(parts, 1))))


@entry(IMAGE, {"stem": 4})
class GroupNorm(nn.Module):
    """A unit is a whole group."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm, self.head = conv(3, 8, 3), nn.GroupNorm(4, 8), conv(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.silu(self.norm(self.stem(x))))


@entry(IMAGE, {"stem": 7})
class InstanceNorm(nn.Module):
    """Every channel is normed alone."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.head = conv(3, 7, 3), conv(7, 2)
        self.norm = nn.InstanceNorm2d(7, affine=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.relu(self.norm(self.stem(x))))


@entry(IMAGE, {"stem": 6})
class InPlace(nn.Module):
    """Sums and activations in place."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.inner, self.head = conv(3, 6, 3), conv(6, 6, 3), nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).relu_()
        y = self.inner(x)
        y += x
        return self.head(y.clamp_(max=6.0).mean((2, 3)))


@entry(POINTS, {"one": 6, "two": 9, "three": 5})
class PointNet(nn.Module):
    """Points one by one, the largest over all, repeated for each."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(3, 6), nn.Linear(6, 9)
        self.three, self.head = nn.Linear(15, 5), nn.Linear(5, 2)

    def forward(self, x: Tensor) -> Tensor:
        local = F.relu(self.one(x))
        whole = F.relu(self.two(local)).max(1, keepdim=True)[0].expand(-1, x.shape[1], -1)
        return self.head(F.relu(self.three(torch.cat([local, whole], -1))))


@entry(POINTS, {"one": 6, "two": 7})
class GraphConvolution(nn.Module):
    """Neighbors are summed by a fixed matrix."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.head = nn.Linear(3, 6), nn.Linear(6, 7), nn.Linear(7, 2)
        self.register_buffer("near", torch.eye(9) + torch.eye(9).roll(1, 0))

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(torch.einsum("nm,bmc->bnc", self.near, self.one(x)))
        return self.head(F.relu(self.near @ self.two(x)))


@entry(IMAGE, {"after": 5}, frozen={"stem.weight": "no rule"})
class Unknown(nn.Module):
    """An operator without a rule keeps what reaches it; what comes after is pruned."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.after, self.head = conv(3, 6, 3), conv(6, 5), conv(5, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.matrix_exp(0.1 * self.stem(x))
        return self.head(F.relu(self.after(x)))


@entry(IMAGE, {"stem": 6, "after": 5})
class Padded(nn.Module):
    """Borders are mirrored; channels pass."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.after, self.head = conv(3, 6), nn.Conv2d(6, 5, 3), conv(5, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.relu(self.after(F.pad(self.stem(x), (1, 1, 1, 1), "reflect"))))


@entry(IMAGE, {"stem": 6})
class Masked(nn.Module):
    """What is dark is filled with a number; a mask over pixels reads all channels of the input."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.head = conv(3, 6, 3), conv(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        dark = x.mean(1, keepdim=True) < 0
        return self.head(self.stem(x).masked_fill(dark, 0.5).relu())
