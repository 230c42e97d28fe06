"""Names that `--model` and `--data` take: a function of the user's, a library's model, data on
disk.

`FILE.py:NAME`, or `KIND:PLACE` such as `timm:resnet18` and `folder:images`. Nothing is imported
or opened here.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

FILE = "file"
MODELS = {
    "torchvision": "torchvision:resnet18",
    "timm": "timm:resnet18",
    "transformers": "transformers:FOLDER",
}
HUB = "datasets"
DATA = {"folder": "folder:DIR", "arrays": "arrays:FILE.npz", HUB: "datasets:NAME"}
ON_DISK = ("transformers", "folder", "arrays")
_FUNCTION = re.compile(r"(?P<file>[^\x00\n]+\.py):(?P<name>[^:]+)")


@dataclass(frozen=True)
class Reference:
    """`kind` is `file` or a key of MODELS or DATA; `name` is a function's, `place` all else."""

    kind: str
    place: str
    name: str = ""

    def text(self) -> str:
        return f"{self.place}:{self.name}" if self.kind == FILE else f"{self.kind}:{self.place}"

    def path(self, base: Path) -> Path | None:
        """The path that it names, relative to `base`; None for a library's model.

        Of `datasets` a folder, where there is one; else the hub has what is meant.
        """
        path = base / self.place
        there = self.kind == HUB and os.path.isdir(path)
        return path if there or self.kind == FILE or self.kind in ON_DISK else None

    def below(self, base: Path) -> Reference:
        path = self.path(base)
        return self if path is None else Reference(self.kind, str(path), self.name)


def regular_expression(text: str) -> str:
    """`text` where it is one. Raises ValueError."""
    try:
        if not text or len(text) > 1000:
            raise ValueError("it must be a regular expression of 1 to 1000 characters")
        re.compile(text)
    except (re.error, RecursionError, OverflowError) as error:
        raise ValueError(f"it must be a regular expression ({error})") from error
    return text


def parse_reference(text: str, kinds: dict[str, str]) -> Reference | None:
    """`text` as a reference of one of `kinds` or to a function; None where it is neither."""
    kind, colon, place = text.partition(":")
    if kind in kinds and colon:
        good = place and place.isprintable() and place == place.strip()
        return Reference(kind, place) if good else None
    match = _FUNCTION.fullmatch(text)
    if match is None or not match["name"].isidentifier():
        return None
    return Reference(FILE, match["file"], match["name"])


def allowed(kinds: dict[str, str]) -> str:
    """The end of a sentence about a reference that is none."""
    return f"it must be `FILE.py:NAME` or {', '.join(f'`{k}`' for k in kinds.values())}"
