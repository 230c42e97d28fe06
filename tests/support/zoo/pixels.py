"""Pixels that are moved, pooled, sampled and transformed, among channels or in their place."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .entry import IMAGE, conv, entry


@entry(IMAGE, {"stem": 6, "after": 5})
class Spectral(nn.Module):
    """Filters of complex numbers, learned per frequency and channel (GFNet)."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.after, self.head = conv(3, 6, 3), conv(6, 5), conv(5, 2)
        self.filter = nn.Parameter(torch.randn(6, 8, 5, 2))

    def forward(self, x: Tensor) -> Tensor:
        x = torch.fft.rfft2(self.stem(x), norm="ortho") * torch.view_as_complex(self.filter)
        return self.head(F.relu(self.after(torch.fft.irfft2(x, s=(8, 8), norm="ortho"))))


@entry(IMAGE, {"stem": 4, "mix": 4})
class Unfolded(nn.Module):
    """Patches as channels and back."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.mix, self.head = conv(3, 4), conv(16, 16), conv(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        y = self.mix(F.unfold(self.stem(x), 2, stride=2).unflatten(2, (4, 4)))
        return self.head(F.fold(F.relu(y).flatten(2), (8, 8), 2, stride=2))


@entry(IMAGE, {"stem": 6, "after": 5})
class Windows(nn.Module):
    """Overlapping windows along both axes (halo attention's keys)."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.after, self.head = conv(3, 6), nn.Linear(6, 5), nn.Linear(5, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = F.pad(self.stem(x), (1, 1, 1, 1)).unfold(2, 4, 2).unfold(3, 4, 2)
        x = x.reshape(x.shape[0], 6, 16, 16).permute(0, 2, 3, 1)
        return self.head(F.relu(self.after(x)))


@entry(IMAGE, {"stem": 6, "where": 4})
class Sampled(nn.Module):
    """Pixels are read where a small net points (spatial transformers, optical flow)."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.where, self.grid = conv(3, 6), conv(3, 4, 3), conv(4, 2)
        self.head = conv(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        grid = torch.tanh(self.grid(F.relu(self.where(x)))).permute(0, 2, 3, 1)
        return self.head(F.grid_sample(self.stem(x), grid, align_corners=False))


@entry(IMAGE, {"stem": 4, "up": 3, "wide": 2})
class TransposedGroups(nn.Module):
    """Transposed convolutions per channel, and in a few groups."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.depth = conv(3, 4), nn.ConvTranspose2d(4, 4, 2, 2, groups=4)
        self.up = nn.ConvTranspose2d(4, 3, 2, 2)
        self.wide, self.twice = conv(3, 8), nn.ConvTranspose2d(8, 4, 1, groups=2)
        self.head = conv(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.up(F.relu(self.depth(self.stem(x)))))
        return self.head(self.twice(F.relu(self.wide(x))))


@entry(IMAGE, {}, frozen={"stem.weight": "mixes neighbors along it"})
class PooledFeatures(nn.Module):
    """Channels that are pooled like pixels, of which each has neighbors (bilinear attention)."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.head = conv(3, 8), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.adaptive_avg_pool1d(self.stem(x).flatten(2).transpose(1, 2), 4))


@entry(IMAGE, {}, frozen={"stem.weight": "mixes neighbors along it"})
class ChannelKernel(nn.Module):
    """Efficient channel attention: a convolution along the channels."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.along, self.head = conv(3, 8), nn.Conv1d(1, 1, 3, padding=1), conv(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        gate = self.along(x.mean((2, 3)).unsqueeze(1)).transpose(1, 2).unsqueeze(-1)
        return self.head(x * gate.sigmoid())


@entry(IMAGE, {}, frozen={"stem.weight": "normalizes over it"})
class TokenNorm(nn.Module):
    """Groups of tokens are normed over all their channels."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm, self.head = conv(3, 6), nn.GroupNorm(4, 64), nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.norm(self.stem(x).flatten(2).transpose(1, 2)))


@entry(IMAGE, {"stem": 6, "inner": 7})
class ChannelsInBatch(nn.Module):
    """Batch, channels and rows merged into one dimension while pixels are moved (MobileViT)."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.inner, self.out = conv(3, 6), nn.Linear(6, 7), nn.Linear(7, 6)
        self.head = conv(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        b, c, h, w = x.shape
        y = x.reshape(b * c * (h // 2), 2, w // 2, 2).transpose(1, 2).reshape(b, c, h * w // 4, 4)
        y = self.out(F.relu(self.inner(y.transpose(1, 3)))).transpose(1, 3)
        y = y.reshape(b * c * (h // 2), w // 2, 2, 2).transpose(1, 2).reshape(b, c, h, w)
        return self.head(x + y)


@entry(IMAGE, {"stem": 6})
class Statistics(nn.Module):
    """Mean and variance over pixels, the largest pixel, and the largest few of all."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.head = conv(3, 6), nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        var, mean = torch.var_mean(x, (2, 3), keepdim=True)
        y = F.adaptive_max_pool2d((x - mean) / (var + 1e-3).sqrt(), 1).flatten(1)
        return self.head(y + x.flatten(2).topk(3, 2)[0].sum(2))


@entry(IMAGE, {"stem": 6})
class Picked(nn.Module):
    """Pixels along a path, picked by two lists of places; shaped like another tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.head = conv(3, 6), nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        path = torch.arange(8)
        y = torch.movedim(x[:, :, path, path.flip(0)], 1, 2)
        return self.head(y.flatten(0, 1).sigmoid().view_as(y))
