"""`folder:DIR`: images in one sub-folder a class, without code of the user's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Generic, TypeVar

from torch import Tensor
from torch.utils.data import Dataset

from ..configs.recipe import DataSpec, InputSpec
from ..core.errors import DataError, first_line
from .loaders import Example, Loaders, loaders, split_indices
from .preprocessing import Preprocessing

if TYPE_CHECKING:
    from PIL.Image import Image

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif", ".ppm", ".pgm")
TRAINING = ("train", "training", "trn")
EVALUATION = (
    "val", "valid", "validation", "dev", "eval", "evaluation", "holdout", "test", "testing",
)  # fmt: skip
KEPT_BYTES = 512 << 20  # decoded images are kept up to here: a search passes over them many times
P = TypeVar("P")
Item = tuple[Path, int]


class Images(Dataset[Example], Generic[P]):
    """(pixels, target) of each item, a place that `opened` opens with its target; by keyword
    where the model's input has one."""

    def __init__(
        self,
        items: Sequence[tuple[P, Tensor | int]],
        opened: Callable[[P], Image],
        pixels: Preprocessing,
    ) -> None:
        self.items, self.opened, self.pixels = items, opened, pixels
        self._kept: dict[int, Tensor] = {}

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> Example:
        place, target = self.items[index]
        image = self._kept.get(index)
        if image is None:
            image = self._read(place)
            if len(self._kept) < KEPT_BYTES // self.pixels.bytes:
                self._kept[index] = image
        name = self.pixels.name
        return {name: image} if name else image, target

    def _read(self, place: P) -> Tensor:
        try:
            with self.opened(place) as image:
                return self.pixels.of(image)
        except Exception as error:  # Pillow's readers raise whatever they meet
            raise DataError(f"`{place}` can't be read as an image: {first_line(error)}") from error


def image_loaders(spec: DataSpec, folder: Path, inputs: tuple[InputSpec, ...]) -> Loaders:
    """DIR/train and DIR/val, by any usual name; else DIR, a part of each class held out.

    Raises DataError where there are no images, MissingExtra without Pillow.
    """
    pixels = Preprocessing(spec.images, inputs, "folder:DIR")
    if not folder.is_dir():
        raise DataError(f"`folder:{folder}`: there is no such folder.")
    train, evaluation = _parts(folder, spec.share)
    datasets = [Images(items, pixels.pillow.open, pixels) for items in (train, evaluation)]
    return loaders(datasets[0], datasets[1], spec.batch)


def classes_in(batches: object) -> int:
    """The number of classes of the images behind these batches; 0 if there are none."""
    dataset = getattr(batches, "dataset", None)
    items = dataset.items if isinstance(dataset, Images) else []
    return 1 + max((target for _, target in items if isinstance(target, int)), default=-1)


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
            f"`{folder}` holds `{alone.name}`, which is not a class but folders of images. Name "
            f"`folder:{alone}`, or put what to evaluate on beside it as `val`."
        )
    train: list[Item] = []
    held_out: list[Item] = []
    items = _items(folder)
    for label in sorted({label for _, label in items}):
        own = [item for item in items if item[1] == label]
        rest, out = split_indices(len(own), share, f"`{own[0][0].parent}`")
        train += [own[i] for i in rest]
        held_out += [own[i] for i in out]
    return train, held_out


def _split_in(folder: Path, names: tuple[str, ...]) -> Path | None:
    """The folder of one of these names, in any case, that holds folders; a class holds images."""
    folders = {p.name.lower(): p for p in sorted(folder.iterdir(), reverse=True) if p.is_dir()}
    known = (folders[name] for name in names if name in folders)
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
                f"`{path}` is not a class but folders of images; `folder:DIR` must name the "
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
    folders = _folders_in(folder)
    if not folders:
        raise DataError(f"`{folder}` has no sub-folders; it must have one for each class.")
    return folders
