"""Four trained nets of different kinds with their data, for `benchmarks/engine.py`.

`python benchmarks/nets.py` trains those that are not in `benchmarks/.trained` yet (minutes).
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

HERE = Path(__file__).parent
TRAINED = HERE / ".trained"


class Inverted(nn.Module):
    """Inverted residual (Sandler et al. 2018): expand, depthwise, project."""

    def __init__(self, inputs: int, outputs: int, stride: int, expand: int = 4) -> None:
        super().__init__()
        inner = inputs * expand
        self.body = nn.Sequential(
            nn.Conv2d(inputs, inner, 1, bias=False), nn.BatchNorm2d(inner), nn.ReLU6(),
            nn.Conv2d(inner, inner, 3, stride, 1, groups=inner, bias=False),
            nn.BatchNorm2d(inner), nn.ReLU6(),
            nn.Conv2d(inner, outputs, 1, bias=False), nn.BatchNorm2d(outputs),
        )  # fmt: skip
        self.same = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x) if self.same else self.body(x)


def mobile() -> nn.Module:
    widths = [(32, 48, 1), (48, 48, 1), (48, 96, 2), (96, 96, 1), (96, 160, 2), (160, 160, 1)]
    return nn.Sequential(
        nn.Conv2d(1, 32, 3, 2, 1, bias=False), nn.BatchNorm2d(32), nn.ReLU6(),
        *(Inverted(*w) for w in widths),
        nn.Conv2d(160, 320, 1, bias=False), nn.BatchNorm2d(320), nn.ReLU6(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(320, 10),
    )  # fmt: skip


class Attention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.num_heads, self.head_dim = heads, width // heads
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        b, n, _ = x.shape
        q, k, v = self.qkv(x).reshape(b, n, 3, self.num_heads, self.head_dim).permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(q, k, v)
        return self.proj(y.transpose(1, 2).reshape(b, n, self.num_heads * self.head_dim))


class Encoder(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.n1, self.n2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = Attention(width, heads)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.n1(x))
        return x + self.down(F.gelu(self.up(self.n2(x))))


class ViT(nn.Module):
    def __init__(self, width: int = 128, depth: int = 4, heads: int = 4) -> None:
        super().__init__()
        self.patch = nn.Conv2d(1, width, 4, 4)
        self.place = nn.Parameter(0.02 * torch.randn(1, 64, width))
        self.blocks = nn.Sequential(*(Encoder(width, heads) for _ in range(depth)))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch(x).flatten(2).transpose(1, 2) + self.place
        return self.head(self.norm(self.blocks(x)).mean(1))


def vit() -> nn.Module:
    return ViT()


class Residual1d(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.c1 = nn.Conv1d(inputs, outputs, 5, stride, 2, bias=False)
        self.c2 = nn.Conv1d(outputs, outputs, 5, 1, 2, bias=False)
        self.b1, self.b2 = nn.BatchNorm1d(outputs), nn.BatchNorm1d(outputs)
        self.short: nn.Module = nn.Identity()
        if stride > 1 or inputs != outputs:
            self.short = nn.Conv1d(inputs, outputs, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.b2(self.c2(F.relu(self.b1(self.c1(x))))) + self.short(x))


def sound() -> nn.Module:
    rows = [(64, 64, 1), (64, 64, 1), (64, 128, 2), (128, 128, 1), (128, 256, 2), (256, 256, 1)]
    return nn.Sequential(
        nn.Conv1d(1, 64, 5, padding=2, bias=False), nn.BatchNorm1d(64), nn.ReLU(),
        *(Residual1d(*r) for r in rows),
        nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(256, 10),
    )  # fmt: skip


def resnet() -> nn.Module:
    from modelspeed.core.user_code import load_factory

    return load_factory("../examples/digits/model.py:build", HERE)(width=32)


class Basic(nn.Module):
    """Residual block of ResNet-18 (He et al. 2016)."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.c1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.c2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.b1, self.b2 = nn.BatchNorm2d(outputs), nn.BatchNorm2d(outputs)
        self.short: nn.Module = nn.Identity()
        if stride > 1 or inputs != outputs:
            self.short = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
            )

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.b2(self.c2(F.relu(self.b1(self.c1(x))))) + self.short(x))


def resnet18() -> nn.Module:
    """ResNet-18 at 224x224 with random weights: for times, not for accuracy."""
    rows = [(64, 64, 1), (64, 64, 1), (64, 128, 2), (128, 128, 1), (128, 256, 2), (256, 256, 1),
            (256, 512, 2), (512, 512, 1)]  # fmt: skip
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU(),
        nn.MaxPool2d(3, 2, 1), *(Basic(*r) for r in rows),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, 1000),
    )  # fmt: skip


def photos() -> tuple[object, object]:
    """Random images of ImageNet's size, as a data set of 1,024 to train and 128 to evaluate on."""

    class Noise(torch.utils.data.Dataset):
        def __init__(self, count: int) -> None:
            self.count = count

        def __len__(self) -> int:
            return self.count

        def __getitem__(self, index: int) -> tuple[Tensor, int]:
            generator = torch.Generator().manual_seed(index)
            return torch.randn(3, 224, 224, generator=generator), index % 1000

    return tuple(torch.utils.data.DataLoader(Noise(n), batch_size=16) for n in (1024, 128))


def digits() -> tuple[object, object]:
    from modelspeed.core.user_code import load_factory

    return load_factory("../examples/digits/data.py:loaders", HERE)()


def clutter() -> tuple[list[tuple[Tensor, Tensor]], list[tuple[Tensor, Tensor]]]:
    """Cluttered digits after Mnih et al. 2014 (arXiv 1406.6247): harder, and more to evaluate on.

    A digit of 16x16 pixels anywhere on 32x32, twelve 8x8 pieces of other digits over the rest, and
    noise. 9,600 images from the digits to train on, 2,400 from the 600 that are held back.
    """
    parts = []
    for seed, (loader, count) in enumerate(zip(digits(), (9600, 2400), strict=True)):
        images, labels = (torch.cat(t) for t in zip(*loader, strict=True))
        images = F.interpolate(images.clamp(-0.8, 1.9), size=16, mode="area") + 0.81
        parts.append(_cluttered(images[:, 0], labels, count, torch.Generator().manual_seed(seed)))
    return parts[0], parts[1]


def _cluttered(
    images: Tensor, labels: Tensor, count: int, generator: torch.Generator
) -> list[tuple[Tensor, Tensor]]:
    def draw(high: int, *shape: int) -> Tensor:
        return torch.randint(high, shape, generator=generator)

    canvas = torch.zeros(count, 32, 32)
    chosen = torch.arange(count) % len(images)
    spots, pieces = draw(17, count, 2).tolist(), draw(25, count, 12, 2).tolist()
    others, corners = draw(len(images), count, 12), draw(9, count, 12, 2).tolist()
    for i in range(count):
        for k in range(12):
            (y, x), (v, u) = pieces[i][k], corners[i][k]
            piece = images[others[i, k], v : v + 8, u : u + 8]
            canvas[i, y : y + 8, x : x + 8] = piece
        y, x = spots[i]
        spot = canvas[i, y : y + 16, x : x + 16]
        digit = images[chosen[i]]
        canvas[i, y : y + 16, x : x + 16] = torch.where(digit > 0.3, digit, 0.5 * spot)
    canvas = canvas + 0.6 * torch.randn(canvas.shape, generator=generator)
    inputs, targets = (canvas.unsqueeze(1) - 0.4) / 0.7, labels[chosen]
    order = torch.randperm(count, generator=generator)
    return [(inputs[rows], targets[rows]) for rows in order.split(64)]


def mnist1d() -> tuple[list[tuple[Tensor, Tensor]], list[tuple[Tensor, Tensor]]]:
    """Greydanus & Kobak 2024: 10 classes of signals of length 40, generated from a seed.

    Noisier than usual: with the usual noise brief training wins everything back.
    """
    from mnist1d.data import get_dataset_args, make_dataset

    args = get_dataset_args()
    args.num_samples, args.corr_noise_scale, args.iid_noise_scale = 12_000, 0.35, 0.05
    dataset = make_dataset(args)
    parts = []
    for x, y in ((dataset["x"], dataset["y"]), (dataset["x_test"], dataset["y_test"])):
        inputs = torch.tensor(x, dtype=torch.float32).unsqueeze(1)
        targets = torch.tensor(y, dtype=torch.int64)
        parts.append([(inputs[i : i + 64], targets[i : i + 64]) for i in range(0, len(y), 64)])
    return parts[0], parts[1]


# name: (data, example input, epochs of training)
NETS = {
    "resnet": ("clutter", (1, 1, 32, 32), 4),
    "mobile": ("clutter", (1, 1, 32, 32), 8),
    "vit": ("digits", (1, 1, 32, 32), 40),
    "sound": ("mnist1d", (8, 1, 40), 12),
}


def accuracy(session: Any, module: nn.Module) -> float:
    """By the recipe's metric on the evaluation data of a run that decides nothing."""
    return float(session.data.accuracy(module, session.device)[0])


def checkpoint(name: str) -> Path:
    """Where the trained weights lie, trained first where they are missing."""
    path = TRAINED / f"{name}.pt"
    if not path.exists():
        TRAINED.mkdir(exist_ok=True)
        torch.save(_trained(name).state_dict(), path)
    return path


def _trained(name: str) -> nn.Module:
    data, _, epochs = NETS[name]
    torch.manual_seed(0)
    model = globals()[name]()
    train, evaluate = globals()[data]()
    steps = epochs * len(train)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps)
    for _ in range(epochs):
        model.train()
        for x, y in train:
            optimizer.zero_grad()
            with torch.autocast("cpu", torch.bfloat16):  # three times as fast with AMX
                loss = F.cross_entropy(model(x), y, label_smoothing=0.05)
            loss.backward()
            optimizer.step()
            schedule.step()
    model.eval()
    with torch.inference_mode():
        right = [(model(x).argmax(1) == y).float() for x, y in evaluate]
    print(f"{name}: accuracy {torch.cat(right).mean():.4f}", file=sys.stderr)
    return model


if __name__ == "__main__":
    for net in sys.argv[1:] or NETS:
        checkpoint(net)
