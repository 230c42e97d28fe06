"""Weights that are computed: from parameters alone they are constants, computed once."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from .entry import IMAGE, SOUND, VECTOR, conv, entry


class _Standardized(nn.Conv2d):
    def forward(self, x: Tensor) -> Tensor:
        rows = self.weight.reshape(1, self.out_channels, -1)
        weight = F.batch_norm(rows, None, None, training=True).reshape_as(self.weight)
        return self._conv_forward(x, self.gain * weight, self.bias)

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, 3, padding=1)
        self.gain = nn.Parameter(torch.ones(outputs, 1, 1, 1))


@entry(IMAGE, {"a": 6, "b": 5})
class Standardized(nn.Module):
    """Mean 0 and variance 1 over the inputs (normalizer-free nets, BiT), with a gain."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.head = _Standardized(3, 6), _Standardized(6, 5), nn.Linear(5, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.gelu(self.b(F.gelu(self.a(x)))).mean((2, 3)))


@entry(SOUND, {"a": 6, "b": 5})
class WeightNorm(nn.Module):
    """Direction and length of each row (vocoders, temporal convolutions)."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.head = (
            nn.Conv1d(3, 6, 3),
            nn.ConvTranspose1d(6, 5, 2),
            nn.Conv1d(5, 2, 1),
        )
        for layer in (self.a, self.head):
            parametrizations.weight_norm(layer)
        parametrizations.weight_norm(self.b, dim=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.leaky_relu(self.b(F.leaky_relu(self.a(x)))))


@entry(VECTOR, {"a": 8, "b": 7})
class SpectralNorm(nn.Module):
    """Divided by the largest singular value (discriminators)."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = (
            parametrizations.spectral_norm(nn.Linear(n, m)) for n, m in ((10, 8), (8, 7))
        )
        self.head = nn.Linear(7, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.relu(self.b(F.relu(self.a(x)))))


@entry(IMAGE, {"stem": 6, "inner": 6})
class MaskedKernel(nn.Module):
    """Part of every kernel is switched off (autoregressive images)."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.inner, self.head = conv(3, 6), conv(6, 6, 3), conv(6, 2)
        self.register_buffer("mask", torch.tensor([1.0] * 4 + [0.0] * 5).reshape(3, 3))

    def forward(self, x: Tensor) -> Tensor:
        y = F.conv2d(self.stem(x), self.inner.weight * self.mask, self.inner.bias, padding=1)
        return self.head(F.relu(y))


@entry(VECTOR, {"encode": 6})
class TiedTranspose(nn.Module):
    """An autoencoder that reads its weight backwards: one parameter, only moved about."""

    def __init__(self) -> None:
        super().__init__()
        self.encode = nn.Linear(10, 6)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(F.relu(self.encode(x)), self.encode.weight.t())


@entry(IMAGE, {}, frozen={"a.weight": "normalizes over it"})
class SharedStandardized(nn.Module):
    """A weight that two places read is not replaced: its statistics keep its inputs whole."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.a, self.head = conv(3, 6), _Standardized(6, 6), nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.a(F.relu(self.a(self.stem(x))))
        return self.head(x.mean((2, 3)) + self.a.weight.mean((1, 2, 3)))
