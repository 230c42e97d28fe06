"""Images changed at random while training, so that few examples stand for more."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn.functional import pad

from ..configs.recipe import AugmentSpec
from ..core.errors import DataError
from ..core.model_io import Batches, Inputs


class Augmented:
    """Batches that differ in each pass; the same passes again with the same `seed`.

    Raises DataError where inputs are not images [batch, channels, height, width], or targets not
    one label [batch] each.
    """

    def __init__(self, batches: Batches, spec: AugmentSpec, seed: int) -> None:
        self.batches, self.spec = batches, spec
        # Of its own: processes of a group draw the order of batches from torch's, in step.
        self.random = torch.Generator().manual_seed(seed)

    def __iter__(self) -> Iterator[tuple[Inputs, Tensor]]:
        for inputs, targets in self.batches:
            if targets.dim() > 1:  # a mask or a box would have to move with its image
                raise DataError(
                    "`data.augment` is for one label per image; the targets have the shape "
                    f"{list(targets.shape)}."
                )
            yield Inputs.of(inputs).map(self._changed), targets

    def _changed(self, images: Tensor) -> Tensor:
        if images.dim() != 4:
            raise DataError(
                "`data.augment` is for images [batch, channels, height, width]; an input has the "
                f"shape {list(images.shape)}."
            )
        if self.spec.flip:
            images = flipped(images, self.random)
        most = self.spec.shift
        return shifted(images, most, self.random) if most else images


def flipped(images: Tensor, random: torch.Generator) -> Tensor:
    """Every other one, drawn, as in a mirror."""
    mirrored = torch.rand(len(images), 1, 1, 1, generator=random) < 0.5
    return torch.where(mirrored.to(images.device), images.flip(3), images)


def shifted(images: Tensor, most: int, random: torch.Generator) -> Tensor:
    """A random crop of each padded image (He et al. 2016, section 4.2), borders repeated."""
    height, width = images.shape[2:]
    starts = torch.randint(2 * most + 1, (len(images), 2), generator=random).tolist()
    padded = pad(images, (most, most, most, most), mode="replicate")
    samples = zip(padded, starts, strict=True)
    return torch.stack([image[:, y : y + height, x : x + width] for image, (y, x) in samples])
