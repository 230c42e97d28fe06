"""What real libraries do that broke something once, each as small as it gets.

Found by `benchmarks/real_models.py`; benchmarks/RESULTS.md names the models.
"""

from __future__ import annotations

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


@entry(IMAGE, {"stem": 2, "stem#2": 6})
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
