"""The nets of the GPU benchmarks at full size, and data they learn in seconds.

ResNet-50 (He et al. 2016), ViT-B/16 (Dosovitskiy et al. 2021) and an encoder of BERT-base's size
(Devlin et al. 2019) start from random weights. Images are the built-in digits, moved, scaled and
buried in noise, at 224x224; of 128 tokens more belong to one of ten groups than to the others.
`MODELSPEED_GPU_QUICK=1` makes them tiny, to go through the same code on a CPU.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))
from nets import Encoder, digits  # noqa: E402

QUICK = os.environ.get("MODELSPEED_GPU_QUICK") == "1"
SCRATCH = Path(os.environ.get("MODELSPEED_GPU_SCRATCH", "/tmp/modelspeed-gpu"))
SIDE, PATCH, STORED = (32, 8, 32) if QUICK else (224, 16, 64)
TOKENS, WORDS = (16, 100) if QUICK else (128, 8000)
TRAIN, EVALUATE, BATCH = (96, 64, 16) if QUICK else (2048, 1024, 64)
CLASSES = 10
Batches = list[tuple[Tensor, Tensor]]


class Bottleneck(nn.Module):
    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        outputs = 4 * width
        self.c1 = nn.Conv2d(inputs, width, 1, bias=False)
        self.c2 = nn.Conv2d(width, width, 3, stride, 1, bias=False)
        self.c3 = nn.Conv2d(width, outputs, 1, bias=False)
        self.b1, self.b2 = nn.BatchNorm2d(width), nn.BatchNorm2d(width)
        self.b3 = nn.BatchNorm2d(outputs)
        self.short: nn.Module = nn.Identity()
        if stride > 1 or inputs != outputs:
            self.short = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
            )

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.b1(self.c1(x)))
        y = self.b3(self.c3(F.relu(self.b2(self.c2(y)))))
        return F.relu(y + self.short(x))


class ViT(nn.Module):
    def __init__(self, width: int, depth: int, heads: int) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, width, PATCH, PATCH)
        self.first = nn.Parameter(torch.zeros(1, 1, width))
        self.place = nn.Parameter(0.02 * torch.randn(1, (SIDE // PATCH) ** 2 + 1, width))
        self.blocks = nn.Sequential(*(Encoder(width, heads) for _ in range(depth)))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.first.expand(x.shape[0], -1, -1), x], 1) + self.place
        return self.head(self.norm(self.blocks(x))[:, 0])


class Bert(nn.Module):
    def __init__(self, width: int, depth: int, heads: int) -> None:
        super().__init__()
        self.token, self.place = nn.Embedding(WORDS, width), nn.Embedding(TOKENS, width)
        self.blocks = nn.Sequential(*(Encoder(width, heads) for _ in range(depth)))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, CLASSES)
        self.register_buffer("places", torch.arange(TOKENS))

    def forward(self, ids: Tensor) -> Tensor:
        x = self.token(ids) + self.place(self.places)
        return self.head(self.norm(self.blocks(x)).mean(1))


def resnet50() -> nn.Module:
    first, rows = (4, ((4, 1, 1), (8, 1, 2))) if QUICK else (
        64, ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2)))  # fmt: skip
    blocks, inputs = [], first
    for width, count, stride in rows:
        for number in range(count):
            blocks.append(Bottleneck(inputs, width, stride if number == 0 else 1))
            inputs = 4 * width
    return nn.Sequential(
        nn.Conv2d(3, first, 7, 2, 3, bias=False), nn.BatchNorm2d(first), nn.ReLU(),
        nn.MaxPool2d(3, 2, 1), *blocks,
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inputs, CLASSES),
    )  # fmt: skip


def vit() -> nn.Module:
    return ViT(32, 1, 2) if QUICK else ViT(768, 12, 12)


def bert() -> nn.Module:
    return Bert(32, 1, 2) if QUICK else Bert(768, 12, 12)


def images(count: int, evaluate: bool, seed: int, device: str) -> tuple[Tensor, Tensor]:
    """[count, 1, STORED, STORED] float16 on the CPU, and labels."""
    generator = torch.Generator().manual_seed(seed)
    pictures, labels = (torch.cat(t) for t in zip(*digits()[evaluate], strict=True))
    rows = torch.randint(len(pictures), (count,), generator=generator)
    scale, shift = 1.0 + 0.8 * torch.rand(count, generator=generator), torch.rand(
        count, 2, generator=generator)  # fmt: skip
    theta = torch.zeros(count, 2, 3)
    theta[:, 0, 0] = theta[:, 1, 1] = scale
    theta[:, :, 2] = 0.8 * (2 * shift - 1) * (scale[:, None] - 1)
    noise = torch.randn(count, 1, STORED, STORED, generator=generator)
    grid = F.affine_grid(theta, [count, 1, STORED, STORED], align_corners=False).to(device)
    moved = F.grid_sample(pictures[rows].to(device), grid, "bilinear", "border", False)
    return (moved.cpu() + 0.7 * noise).half(), labels[rows]


def texts(count: int, evaluate: bool, seed: int, device: str) -> tuple[Tensor, Tensor]:
    """[count, TOKENS] token ids; a fifth of them are of the label's group (id modulo CLASSES)."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(CLASSES, (count,), generator=generator)
    ids = torch.randint(WORDS // CLASSES, (count, TOKENS), generator=generator) * CLASSES
    own = torch.rand(count, TOKENS, generator=generator) < 0.2
    groups = torch.randint(CLASSES, (count, TOKENS), generator=generator)
    return ids + torch.where(own, labels[:, None], groups), labels


@dataclass(frozen=True)
class Net:
    """`shape` of one example; `rate` of AdamW."""

    build: Callable[[], nn.Module]
    draw: Callable[[int, bool, int, str], tuple[Tensor, Tensor]]
    shape: tuple[int, ...]
    rate: float

    @property
    def pictures(self) -> bool:
        return len(self.shape) == 3

    def inputs(self, batch: int) -> str:
        """As `--inputs` takes them."""
        sizes = "x".join(map(str, (batch, *self.shape)))
        return sizes if self.pictures else f"{sizes}:int64:0..{WORDS - 1}"

    def full(self, x: Tensor) -> Tensor:
        """Stored examples as the net takes them."""
        if not self.pictures:
            return x
        grown = F.interpolate(x.float(), size=SIDE, mode="bilinear", align_corners=False)
        return grown.expand(-1, 3, -1, -1).contiguous()


NETS = {
    "resnet50": Net(resnet50, images, (3, SIDE, SIDE), 1e-3),
    "vit": Net(vit, images, (3, SIDE, SIDE), 3e-4),
    "bert": Net(bert, texts, (TOKENS,), 1e-4),
}


def checkpoint(name: str) -> Path:
    return SCRATCH / "nets" / f"{name}.pt"


def data_file(name: str) -> Path:
    return SCRATCH / "nets" / f"{'images' if NETS[name].pictures else 'texts'}.pt"


def loaders(name: str) -> tuple[Batches, Batches]:
    """What `train.py` drew, to train and to evaluate on."""
    stored, net = torch.load(data_file(name)), NETS[name]
    parts = []
    for part in ("train", "evaluate"):
        x, y = stored[part]
        parts.append(
            [(net.full(a), b) for a, b in zip(x.split(BATCH), y.split(BATCH), strict=True)]
        )
    return parts[0], parts[1]


def resnet50_data() -> tuple[Batches, Batches]:
    return loaders("resnet50")


def vit_data() -> tuple[Batches, Batches]:
    return loaders("vit")


def bert_data() -> tuple[Batches, Batches]:
    return loaders("bert")
