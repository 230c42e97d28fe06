"""The UCI handwritten digits (see LICENSE-DATA.md) as train and eval batches of 1x32x32 images."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate, pad

TRAIN = 1197
MEAN, STD = 0.3053, 0.3760  # of all pixels at 8x8, scaled to 0..1


class Batches:
    """Re-iterable batches. Training ones are shuffled and shifted anew, reproducibly, each pass."""

    def __init__(self, images: Tensor, labels: Tensor, size: int, *, train: bool) -> None:
        self.images, self.labels, self.size, self.train = images, labels, size, train
        self._passes = 0

    def __len__(self) -> int:
        return -(-len(self.images) // self.size)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        generator = torch.Generator().manual_seed(self._passes)
        self._passes += 1
        order = torch.arange(len(self.images))
        if self.train:
            order = torch.randperm(len(self.images), generator=generator)
        for rows in order.split(self.size):
            images = self.images[rows]
            yield (self._shifted(images, generator) if self.train else images), self.labels[rows]

    def _shifted(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """The whole batch moved by up to 2 pixels; the border repeats the background."""
        dy, dx = torch.randint(0, 5, (2,), generator=generator).tolist()
        wide = pad(images, (2, 2, 2, 2), mode="replicate")
        return wide[:, :, dy : dy + 32, dx : dx + 32].contiguous()


def loaders() -> tuple[Batches, Batches]:
    with np.load(Path(__file__).with_name("digits.npz"), allow_pickle=False) as file:
        pixels, labels = file["images"], file["labels"]
    small = torch.from_numpy(pixels.astype(np.float32) / 16.0).unsqueeze(1)
    images = interpolate((small - MEAN) / STD, size=32, mode="bilinear", align_corners=False)
    targets = torch.from_numpy(labels.astype(np.int64))
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    train, held = order[:TRAIN], order[TRAIN:]
    return (
        Batches(images[train], targets[train], 64, train=True),
        Batches(images[held], targets[held], 200, train=False),
    )
