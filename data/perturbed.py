"""Inputs changed a little: near what a model knows by heart, but not that."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from ..configs.recipe import AugmentSpec
from ..core.model_io import Batches, Inputs
from .augmentation import flipped, shifted

SHIFT = 16  # of an image's shorter side, the part it moves by at most
NOISE = 0.05  # of the standard deviation of other real-valued inputs


class Perturbed:
    """The same changes in each pass, so that all models see the same. Targets are as they were.

    Images [batch, channels, height, width] are changed as `spec` says, or moved by some pixels;
    other real-valued inputs have noise added. Whole numbers, such as tokens, stay as they are.
    """

    def __init__(self, batches: Batches, spec: AugmentSpec | None, seed: int) -> None:
        self.batches, self.spec, self.seed = batches, spec, seed

    def __iter__(self) -> Iterator[tuple[Inputs, Tensor]]:
        random = torch.Generator().manual_seed(self.seed)
        for inputs, targets in self.batches:
            yield Inputs.of(inputs).map(lambda x: self._changed(x, random)), targets

    def _changed(self, x: Tensor, random: torch.Generator) -> Tensor:
        if not x.is_floating_point() or not x.dim():
            return x
        if x.dim() != 4:
            noise = torch.randn(x.shape, generator=random).to(x)
            return x + NOISE * x.std(correction=0) * noise
        if self.spec is not None and self.spec.flip:
            x = flipped(x, random)
        usual = max(1, min(x.shape[2:]) // SHIFT)
        most = self.spec.shift if self.spec is not None else usual
        return shifted(x, most, random) if most else x
