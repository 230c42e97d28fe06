"""`folder:DIR`: images in one sub-folder a class, without code of the user's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from ..checkpoints.extras import extra
from ..configs.recipe import DataSpec, ImageSpec, InputSpec
from ..core.errors import DataError
from .pieces import Loaders, loaders, parted

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif", ".ppm", ".pgm")
TRAINING = ("train", "training", "trn")
EVALUATION = (
    "val", "valid", "validation", "dev", "eval", "evaluation", "holdout", "test", "testing",
)  # fmt: skip
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet, as published models take it
SIDE = 224
KEPT_BYTES = 512 << 20  # decoded images are kept up to here: a search passes over them many times
Item = tuple[Path, int]


class Images(Dataset[tuple[Any, int]]):
    """(float32 [channels, height, width], class) of each file; by `name` where one is given."""

    def __init__(
        self, items: list[Item], size: tuple[int, int], spec: ImageSpec, name: str | None = None
    ) -> None:
        self.name = name
        self.items, self.size, self.crop = items, size, spec.crop
        self.mean, self.std = (torch.tensor(v).view(-1, 1, 1) for v in (spec.mean, spec.std))
        self.image = extra("PIL.Image", "folder:DIR")
        room = KEPT_BYTES // (4 * size[0] * size[1] * len(self.mean))
        self._kept: dict[int, Tensor] = {}
        self._room = room

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        path, label = self.items[index]
        found = self._kept.get(index)
        if found is None:
            found = self._read(path)
            if len(self._kept) < self._room:
                self._kept[index] = found
        return {self.name: found} if self.name else found, label

    def _read(self, path: Path) -> Tensor:
        height, width = self.size
        try:
            with self.image.open(path) as opened:
                image = opened.convert("RGB" if len(self.mean) == 3 else "L")
                image = self._cropped(image)
                pixels = torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8)
        except Exception as error:  # Pillow's readers raise whatever they meet
            first = (str(error).strip() or repr(error)).splitlines()[0]
            raise DataError(f"`{path}` can't be read as an image: {first.rstrip('.')}.") from error
        values = pixels.view(height, width, -1).permute(2, 0, 1).float() / 255
        return (values - self.mean) / self.std

    def _cropped(self, image: Any) -> Any:
        """The middle of the image, as wide and high as asked for, resized in one step."""
        height, width = self.size
        # So that the crop is `crop` of the shorter side after resizing.
        scale = min(image.width / width, image.height / height) * self.crop
        left, top = (image.width - width * scale) / 2, (image.height - height * scale) / 2
        box = (left, top, left + width * scale, top + height * scale)
        return image.resize((width, height), self.image.Resampling.BILINEAR, box=box)


def image_loaders(spec: DataSpec, folder: Path, inputs: tuple[InputSpec, ...]) -> Loaders:
    """DIR/train and DIR/val, by any usual name; else DIR, a part of each class held out.

    Raises DataError where there are no images, MissingExtra without Pillow.
    """
    images, size = _settled(spec.images or ImageSpec(), inputs)
    if not folder.is_dir():
        raise DataError(f"`folder:{folder}`: there is no such folder.")
    train, held = _parts(folder, spec.share)
    name = inputs[0].name if inputs else None
    made = [Images(items, size, images, name) for items in (train, held)]
    return loaders(made[0], made[1], spec.batch)


def classes_in(batches: Any) -> int:
    """How many classes the folder behind these batches has; 0 where there is none."""
    held = getattr(batches, "dataset", None)
    return 1 + max(label for _, label in held.items) if isinstance(held, Images) else 0


def _parts(folder: Path, share: float) -> tuple[list[Item], list[Item]]:
    training, evaluation = _split_in(folder, TRAINING), _split_in(folder, EVALUATION)
    if training is not None and evaluation is not None:
        names, others = ({p.name for p in _classes(f)} for f in (training, evaluation))
        if names != others:
            odd, one, other = sorted(names ^ others)[0], training.name, evaluation.name
            raise DataError(f"`{folder}`: the class `{odd}` is not in both `{one}` and `{other}`.")
        return _items(training), _items(evaluation)
    if (alone := training or evaluation) is not None:
        raise DataError(
            f"`{folder}` holds `{alone.name}`, which is no class: it holds folders of images. Name "
            f"`folder:{alone}`, or put what to evaluate on beside it as `val`."
        )
    train: list[Item] = []
    held: list[Item] = []
    items = _items(folder)
    for label in sorted({label for _, label in items}):
        own = [item for item in items if item[1] == label]
        rest, out = parted(len(own), share, f"`{own[0][0].parent}`")
        train += [own[i] for i in rest]
        held += [own[i] for i in out]
    return train, held


def _split_in(folder: Path, names: tuple[str, ...]) -> Path | None:
    """The folder of one of these names, in any case, that holds folders; a class holds images."""
    found = {p.name.lower(): p for p in sorted(folder.iterdir(), reverse=True) if p.is_dir()}
    known = (found[name] for name in names if name in found)
    return next((path for path in known if not _images_in(path) and _folders_in(path)), None)


def _items(folder: Path) -> list[Item]:
    """All images with the number of their class: sub-folders by name, as torchvision counts."""
    items: list[Item] = []
    for label, path in enumerate(_classes(folder)):
        files = sorted(p for p in path.rglob("*") if _is_image(p))
        if not files:
            raise DataError(f"`{path}` has no images; allowed are {', '.join(SUFFIXES)}.")
        if not _images_in(path) and len(_folders_in(path)) > 1:
            raise DataError(
                f"`{path}` holds folders of images, so it is no class; `folder:DIR` must name the "
                f"folder with one sub-folder a class, or have them in `train` and `val`."
            )
        items += [(file, label) for file in files]
    return items


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES and path.is_file()


def _images_in(folder: Path) -> bool:
    return any(_is_image(p) for p in folder.iterdir())


def _folders_in(folder: Path) -> list[Path]:
    return [p for p in sorted(folder.iterdir()) if p.is_dir() and not p.name.startswith(".")]


def _classes(folder: Path) -> list[Path]:
    found = _folders_in(folder)
    if not found:
        raise DataError(f"`{folder}` has no sub-folders; it must have one for each class.")
    return found


def _settled(images: ImageSpec, inputs: tuple[InputSpec, ...]) -> tuple[ImageSpec, tuple[int, int]]:
    """With mean and std, and the size: what is not said is taken from the model's input."""
    shape = inputs[0].shape if inputs and len(inputs[0].shape) == 4 else (1, 3, SIDE, SIDE)
    size = images.size if images.size is not None else shape[2:]
    height, width = (size, size) if isinstance(size, int) else size
    if images.mean is None and shape[1] != 3:
        raise DataError(
            f"`data.images` must give `mean` and `std`: the model takes {shape[1]} channels, and "
            "only for 3 there are usual ones."
        )
    mean, std = images.mean or MEAN, images.std or STD
    return images.model_copy(update={"mean": mean, "std": std}), (height, width)
