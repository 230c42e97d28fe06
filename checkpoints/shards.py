"""Weights in several safetensors files, named by an index (`*.safetensors.index.json`)."""

from __future__ import annotations

import json
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from ..core.errors import CheckpointError, first_line
from .places import check_inside, there

MAX_INDEX = 64 << 20  # bytes; the largest published ones have some hundred kB


def load_safetensors(path: Path) -> dict[str, Tensor]:
    """All tensors of one file by name. Raises CheckpointError where it is damaged."""
    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError, KeyError, RuntimeError, AttributeError) as error:
        raise CheckpointError(
            f"`{path}` is truncated or no safetensors file: {first_line(error)}"
        ) from error


def load_shards(index: Path) -> dict[str, Tensor]:
    """All tensors that the index names. Raises CheckpointError naming the shard that fails."""
    weights: dict[str, Tensor] = {}
    files = shards_of(index)
    for file in sorted(set(files.values())):
        tensors = load_safetensors(index.parent / file)
        absent = next((n for n, f in files.items() if f == file and n not in tensors), None)
        if absent is not None:
            raise CheckpointError(
                f"`{index}` says that `{absent}` is in `{file}`, but it is not; the files are not "
                "of one checkpoint."
            )
        weights |= {name: tensors[name] for name, f in files.items() if f == file}
    return weights


def shards_of(index: Path) -> dict[str, str]:
    """File name by tensor name, each file checked to be there beside the index."""
    try:
        if index.stat().st_size > MAX_INDEX:
            raise CheckpointError(f"`{index}` is larger than {MAX_INDEX >> 20} MB; it is refused.")
        files = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        good = bool(files) and all(isinstance(f, str) for f in files.values())
    except CheckpointError:
        raise
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CheckpointError(
            f"`{index}` is not an index of safetensors files: {first_line(error)}"
        ) from error
    if not good:
        raise CheckpointError(f"`{index}` has no `weight_map` of tensor names to file names.")
    for file in sorted(set(files.values())):
        # An index may come from anywhere; it can't point out of its own folder.
        if Path(file).name != file or not file.isprintable() or len(file) > 255 or ".." in file:
            raise CheckpointError(
                f"`{index}` names `{file[:80]!r}`, which is not a file beside it."
            )
        if not there(index.parent / file):
            raise CheckpointError(f"`{index}` names `{file}`, which is not there.")
        check_inside(index.parent / file)
    return dict(files)
