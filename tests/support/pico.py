"""Tiny networks, one idea each, and small data for them."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

torch.set_num_threads(1)


class Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)
        self.act = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.conv2(self.act(self.bn1(self.conv1(x)))) + x)


class Depthwise(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.depth = nn.Conv2d(width, width, 3, padding=1, groups=width)
        self.point = nn.Conv2d(width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.point(nn.functional.relu6(self.depth(x)))


class Grouped(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.mix = nn.Conv2d(width, width, 3, padding=1, groups=2)
        self.bn = nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.silu(self.bn(self.mix(x)))


class SqueezeExcite(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.down, self.up = nn.Conv2d(width, 4, 1), nn.Conv2d(4, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(self.up(torch.relu(self.down(self.pool(x)))))


class Branches(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(width, 3, 1), nn.Conv2d(width, 5, 3, padding=1)
        self.join = nn.Conv2d(8 + width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(self.join(torch.cat([self.a(x), x, self.b(x)], 1)))


BLOCKS = {
    "residual": Residual,
    "depthwise": Depthwise,
    "grouped": Grouped,
    "squeeze_excite": SqueezeExcite,
    "branches": Branches,
}


class Net(nn.Module):
    """stem -> blocks -> pool to `side` x `side` -> flatten (or a view with its size) -> head."""

    def __init__(
        self, blocks: list[str], width: int = 8, side: int = 1, view: bool = False
    ) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, width, 3, stride=2, padding=1)
        self.bn = nn.BatchNorm2d(width)
        self.blocks = nn.Sequential(*(BLOCKS[name](width) for name in blocks))
        self.pool = nn.AdaptiveAvgPool2d(side)
        self.drop = nn.Dropout(0.2)
        self.size, self.view = width * side * side, view
        self.head = nn.Linear(self.size, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = self.pool(self.blocks(torch.relu(self.bn(self.stem(x)))))
        flat = y.view(y.shape[0], self.size) if self.view else y.flatten(1)
        return self.head(self.drop(flat))


def net(blocks: list[str], width: int = 8, side: int = 1, view: bool = False, seed: int = 0) -> Net:
    """A net in eval mode whose batch norms hold statistics that are not neutral."""
    torch.manual_seed(seed)
    made = Net(blocks, width, side, view)
    for module in made.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.2)
            module.running_var.uniform_(0.5, 2.0)
            nn.init.normal_(module.weight, 1.0, 0.3)
    return made.eval()


def images(count: int = 2, seed: int = 1) -> Tensor:
    return torch.randn(count, 1, 12, 12, generator=torch.Generator().manual_seed(seed))


MODEL_FILE = """
import torch
from torch import nn

def build(width=8):
    return nn.Sequential(
        nn.Conv2d(1, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU(),
        nn.Conv2d(width, 2 * width, 3, padding=1), nn.BatchNorm2d(2 * width), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2 * width, 3),
    )
"""
DATA_FILE = """
import torch

def loaders():
    g = torch.Generator().manual_seed(0)
    y = torch.randint(0, 3, (48,), generator=g)
    x = torch.randn(48, 1, 12, 12, generator=g) + y.view(-1, 1, 1, 1).float()
    batches = [(x[i:i + 16], y[i:i + 16]) for i in range(0, 48, 16)]
    return batches[:2], batches[2:]

def empty():
    return [], []
"""
RECIPE = """
version: 1
model: {factory: "model.py:build"}
inputs: [{shape: [1, 1, 12, 12]}]
data: {factory: "data.py:loaders"}
limits: {max_drop: 1.0}
adjust:
  - prune
  - finetune: {epochs: 1, bn_batches: 2}
  - fold_batchnorm
"""


def project(folder: Path, recipe: str = RECIPE) -> Path:
    """A user's folder: model.py, data.py, modelspeed.yaml and the checkpoint, which it returns."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.py").write_text(MODEL_FILE)
    (folder / "data.py").write_text(DATA_FILE)
    (folder / "modelspeed.yaml").write_text(recipe)
    scope: dict[str, object] = {}
    exec(compile(MODEL_FILE, "model.py", "exec"), scope)
    torch.manual_seed(0)
    model = scope["build"]()  # type: ignore[operator]
    torch.save(model.state_dict(), folder / "ckpt.pt")
    return folder / "ckpt.pt"
