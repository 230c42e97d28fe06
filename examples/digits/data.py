"""The UCI handwritten digits (see LICENSE-DATA.md) as train and eval batches of 1x32x32 images."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate, pad

SIZE, SHIFT = 32, 2  # pixels
MEAN, STD = 0.3052, 0.3761  # of the training pixels at 8x8, scaled to 0..1


class Batches:
    """Re-iterable batches of (inputs float32 [B, 1, 32, 32], targets int64 [B]).

    Training batches are shuffled and shifted anew on each pass, seeded by the pass's number, so
    that two runs see the same images.
    """

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
            yield (_shifted(images, generator) if self.train else images), self.labels[rows]


def _shifted(images: Tensor, generator: torch.Generator) -> Tensor:
    """Each image moved by up to SHIFT pixels either way; its border is repeated."""
    wide = pad(images, (SHIFT,) * 4, mode="replicate")
    windows = wide.unfold(2, SIZE, 1).unfold(3, SIZE, 1)  # a view: [B, 1, dy, dx, 32, 32]
    dy, dx = torch.randint(0, 2 * SHIFT + 1, (2, len(images)), generator=generator)
    return windows[torch.arange(len(images)), :, dy, dx].contiguous()


def loaders() -> tuple[Batches, Batches]:
    """1,197 images to train on and 600 to evaluate on, with the same share of each digit."""
    with np.load(Path(__file__).with_name("digits.npz"), allow_pickle=False) as file:
        pixels, labels, held = file["images"], file["labels"], file["held"]
    small = torch.from_numpy(pixels.astype(np.float32) / 16.0).unsqueeze(1)
    images = interpolate((small - MEAN) / STD, size=SIZE, mode="bilinear", align_corners=False)
    targets = torch.from_numpy(labels.astype(np.int64))
    # The split is stored, not drawn here: a generator's order may change between versions.
    evaluate = torch.zeros(len(images), dtype=torch.bool)
    evaluate[torch.from_numpy(held.astype(np.int64))] = True
    return (
        Batches(images[~evaluate], targets[~evaluate], 64, train=True),
        Batches(images[evaluate], targets[evaluate], 200, train=False),
    )
