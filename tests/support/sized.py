"""Nets that take inputs of many sizes, with what is to vary; and one that does not."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

ANY = {"low": 1, "high": None, "multiple": 1, "tied": ""}
Specs = list[dict[str, Any]]


def images(*axes: int) -> Specs:
    varies = {str(axis): ANY for axis in axes}
    return [{"shape": [1, 3, 16, 16], "dtype": "float32", "varies": varies}]


class Pooled(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(
            nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1),
            nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3),
        )  # fmt: skip


class Text(nn.Module):
    """A transformer's block over a table of 24 positions, the first of which is read at the end."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens, self.places = nn.Embedding(30, 16), nn.Embedding(24, 16)
        self.norm, self.qkv, self.out = nn.LayerNorm(16), nn.Linear(16, 48), nn.Linear(16, 16)
        self.up, self.down, self.head = nn.Linear(16, 24), nn.Linear(24, 16), nn.Linear(16, 3)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        batch, length = input_ids.shape
        x = self.tokens(input_ids) + self.places(torch.arange(length))
        q, k, v = self.qkv(self.norm(x)).view(batch, length, 3, 4, 4).permute(2, 0, 3, 1, 4)
        mask = attention_mask[:, None, None, :].bool()
        y = nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        x = x + self.out(y.transpose(1, 2).reshape(batch, length, 16))
        return self.head((x + self.down(self.up(x).relu()))[:, 0])


def text(length: int = 8) -> Specs:
    varies = {"1": ANY}
    return [
        {"shape": [1, length], "dtype": "int64", "name": "input_ids", "range": [0, 29],
         "varies": varies},
        {"shape": [1, length], "dtype": "int64", "name": "attention_mask", "range": [1, 1],
         "varies": varies},
    ]  # fmt: skip


class UNet(nn.Module):
    """What is made smaller twice must come back as large: sides are multiples of 4."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(3, 8, 3, 2, 1), nn.Conv2d(8, 8, 3, 2, 1)
        self.up, self.out = nn.ConvTranspose2d(8, 8, 2, 2), nn.Conv2d(16, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        high = self.one(x).relu()
        low = self.up(self.two(high).relu())
        return self.out(torch.cat([high, low], 1))


class Resized(nn.Module):
    """A decoder's output at the size of the input."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.out = nn.Conv2d(3, 8, 3, 2), nn.Conv2d(8, 6, 3), nn.Conv2d(6, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.out(self.two(self.one(x).relu()).relu())
        return nn.functional.interpolate(y, size=x.shape[2:], mode="bilinear")


class Windows(nn.Module):
    """Windows of 4x4 pixels: sides are multiples of 4."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.mix, self.head = nn.Conv2d(3, 8, 1), nn.Linear(16, 16), nn.Conv2d(8, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).relu()
        b, c, h, w = x.shape
        y = x.view(b, c, h // 4, 4, w // 4, 4).permute(0, 1, 2, 4, 3, 5).flatten(-2)
        return self.head(self.mix(y).mean(-1))


class Branching(nn.Module):
    """Another computation above 20: a capture at 16 does not know it."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        return x * 2 if x.shape[2] > 20 else x.cumsum(2)


class Flat(nn.Sequential):
    """Its linear layer fixes the size."""

    def __init__(self) -> None:
        super().__init__(nn.Conv2d(3, 4, 3, padding=1), nn.Flatten(), nn.Linear(1024, 3))


def made(kind: type[nn.Module]) -> nn.Module:
    torch.manual_seed(0)
    return kind().eval()
