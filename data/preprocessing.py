"""An image as the model sees it: cut, resized and normalized as its training did."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..configs.recipe import ImageSpec, InputSpec
from ..core.errors import DataError
from ..core.extras import extra

if TYPE_CHECKING:
    from PIL.Image import Image

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet, as published models take it
SIDE = 224
BITS16 = 65535.0


class Preprocessing:
    """From a Pillow image to float32 [channels, height, width]; what the recipe leaves open is
    taken from the model's input, and so is `name`, the keyword it is passed as.

    Raises MissingExtra without Pillow, DataError where channels need statistics of their own.
    """

    def __init__(
        self, images: ImageSpec | None, inputs: tuple[InputSpec, ...], wanted_by: str
    ) -> None:
        self.pillow = extra("PIL.Image", wanted_by)
        spec = images or ImageSpec()
        shape = inputs[0].shape if inputs and len(inputs[0].shape) == 4 else (1, 3, SIDE, SIDE)
        if spec.mean is None and shape[1] != 3:
            raise DataError(
                f"`data.images` must give `mean` and `std`: the model takes {shape[1]} channels, "
                "and only for 3 there are usual ones."
            )
        size = spec.size if spec.size is not None else shape[2:]
        self.height, self.width = (size, size) if isinstance(size, int) else size
        self.crop = spec.crop
        mean, std = spec.mean or MEAN, spec.std or STD
        self.mean, self.std = (torch.tensor(v).view(-1, 1, 1) for v in (mean, std))
        self.name = inputs[0].name if inputs else None

    @property
    def bytes(self) -> int:
        return 4 * self.height * self.width * len(self.mean)

    def of(self, image: Image) -> Tensor:
        return (self._scaled(image) - self.mean) / self.std

    def _scaled(self, image: Image) -> Tensor:
        """[channels, height, width] from 0 to 1."""
        if image.mode.startswith("I"):  # gray of 16 bits, which turning into 8 would clip
            gray = self._cropped(image.convert("I").convert("F"))
            values = torch.frombuffer(bytearray(gray.tobytes()), dtype=torch.float32) / BITS16
        else:
            colored = image.convert("RGB" if len(self.mean) == 3 else "L")
            pixels = bytearray(self._cropped(colored).tobytes())
            values = torch.frombuffer(pixels, dtype=torch.uint8).float() / 255
        return values.view(self.height, self.width, -1).permute(2, 0, 1)

    def _cropped(self, image: Image) -> Image:
        """The middle of the image, as wide and high as asked for, resized in one step."""
        height, width = self.height, self.width
        # So that the crop is `crop` of the shorter side after resizing.
        scale = min(image.width / width, image.height / height) * self.crop
        left, top = (image.width - width * scale) / 2, (image.height - height * scale) / 2
        box = (left, top, left + width * scale, top + height * scale)
        return image.resize((width, height), self.pillow.Resampling.BILINEAR, box=box)
