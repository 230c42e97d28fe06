"""Files of a local folder `datasets:DIR` that are read: only its own.

The library itself would follow what the folder's README, state files and rows name: other
files, and URLs.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

from ..core.errors import DataError
from .image_folder import EVALUATION, SUFFIXES, TRAINING

IMAGES = "imagefolder"
KINDS = {".parquet": "parquet", ".csv": "csv", ".json": "json", ".jsonl": "json"}
KINDS |= dict.fromkeys(SUFFIXES, IMAGES)
LISTS = ("metadata.csv", "metadata.jsonl", "metadata.parquet")  # beside images: their columns
OWN = ("dataset_infos.json", "dataset_info.json")  # written by the library; they hold no rows
_PATTERN = re.compile(r"[*?\[\]]|::")  # a path with these would mean others to the library


class Split(Protocol):
    """A `datasets.Dataset`; `data` is its arrow table."""

    features: Mapping[str, object]
    data: Any

    def __len__(self) -> int: ...

    def __getitem__(self, key: int | slice) -> dict[str, Any]: ...

    def select(self, indices: Sequence[int]) -> Split: ...

    def select_columns(self, names: list[str]) -> Split: ...

    def with_format(self, kind: str) -> Split: ...


def load_folder(library: ModuleType, folder: Path, shown: str) -> Split | Mapping[str, Split]:
    """The data set or its splits. Raises DataError where there is none or it leaves the folder."""
    folder = folder.absolute()
    loaded: Split | Mapping[str, Split]
    if any((folder / name).is_file() for name in ("dataset_dict.json", "state.json")):
        _check_saved(folder, shown)
        loaded = library.load_from_disk(folder)
    else:
        kind, files = _files(folder, shown)
        loaded = library.load_dataset(kind, data_files=files)
    for part in loaded.values() if isinstance(loaded, Mapping) else [loaded]:
        _check_images(part, folder, shown)
    return loaded


def _files(folder: Path, shown: str) -> tuple[str, dict[str, list[str]]]:
    """Of which kind all files are, and which belong to each split."""
    kinds: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for path in sorted(folder.rglob("*")):
        parts = path.relative_to(folder).parts
        kind = IMAGES if path.name in LISTS else KINDS.get(path.suffix.lower())
        if kind and path.name not in OWN and parts[0][0] != "." and path.is_file():
            kinds[kind][_split(parts)].append(str(_inside(path, folder, shown)))
    if len(kinds) != 1:
        raise DataError(
            f"{shown} holds {' and '.join(sorted(kinds)) or 'no'} files; it must hold one of "
            "parquet, csv, json and images, or what `save_to_disk` wrote."
        )
    ((kind, splits),) = kinds.items()
    if len(splits) > 1:
        splits.pop("", None)
    return kind, {name or "train": files for name, files in splits.items()}


def _split(parts: tuple[str, ...]) -> str:
    """`train/0.png`, `data/test-00000-of-00001.parquet`: the split in the path, if it has one."""
    words = (word for part in parts for word in re.split(r"[^a-z]+", part.lower()))
    return next((word for word in words if word in (*TRAINING, *EVALUATION)), "")


def _inside(path: Path, folder: Path, shown: str) -> Path:
    # A relative one may be a URL, and starts from the working folder.
    if not path.is_absolute() or not path.resolve().is_relative_to(folder.resolve()):
        raise DataError(f"{shown}: `{path}` leaves the folder; what it holds must be in it.")
    if _PATTERN.search(str(path)):
        raise DataError(f"{shown}: the name `{path}` must be without `*`, `?`, `[`, `]`, `::`.")
    return path


def _check_saved(folder: Path, shown: str) -> None:
    """The files that `load_from_disk` would read. Raises DataError."""
    try:
        _check_listed(folder, shown)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DataError(f"{shown}: its list of saved files is damaged.") from error


def _check_listed(folder: Path, shown: str) -> None:
    listed = folder / "dataset_dict.json"
    splits = json.loads(listed.read_text())["splits"] if listed.is_file() else ["."]
    for part in (folder / str(name) for name in splits):
        state = _inside(part / "state.json", folder, shown)
        _inside(part / "dataset_info.json", folder, shown)
        for entry in json.loads(state.read_text())["_data_files"]:
            _inside(part / str(entry["filename"]), folder, shown)


def _check_images(part: Split, folder: Path, shown: str) -> None:
    """An image is in its row, or in a file of the folder that the row names."""
    for name, feature in part.features.items():
        if type(feature).__name__ == "Image":
            for path in _named(part.data.column(name).chunks):
                _inside(Path(path), folder, shown)


def _named(chunks: Iterable[Any]) -> Iterator[str]:
    """Of arrow's {bytes, path}: the paths of rows without bytes."""
    for chunk in chunks:
        paths = chunk.field("path").filter(chunk.field("bytes").is_null())
        yield from (path for path in paths.to_pylist() if path)
