"""The manifest of an artifact, read with doubt: it may have been damaged or made up."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

from ..core.errors import ArtifactError, first_line
from ..core.files import CONVERTED, read_text
from ..core.json_values import JsonObject
from ..core.records import FORMAT_VERSION
from ..core.span import spans_from_json
from ..core.workspace import recover

MANIFEST = "modelspeed.json"
MAX_INPUT_VALUES = 1 << 28  # of the example inputs together: 1 GiB of float32
DTYPES = ("float32", "float16", "bfloat16", "float64", "int64", "int32", "uint8", "bool")
MAX_SAMPLE_VALUES = 4096


def read_manifest(folder: Path, *, any_version: bool = False) -> JsonObject:
    """The manifest of an artifact. Raises ArtifactError where it is missing or damaged.

    `any_version`: only whether it is one counts.
    """
    path = folder / MANIFEST
    if not folder.exists():
        recover(folder)  # a killed run may have moved it away
    try:
        manifest = json.loads(read_text(path))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ArtifactError(f"`{folder}` is not an artifact: it has no `{MANIFEST}`.") from error
    except (OSError, ValueError, RecursionError) as error:
        raise ArtifactError(f"`{path}` can't be read: {first_line(error)}") from error
    if not isinstance(manifest, dict) or "format_version" not in manifest:
        raise ArtifactError(
            f"`{path}` is not a manifest of modelspeed: it has no `format_version`."
        )
    if any_version:
        return manifest
    if manifest["format_version"] != FORMAT_VERSION:
        raise ArtifactError(
            f"`{path}` has format version {str(manifest['format_version'])[:20]}; this modelspeed "
            f"reads {FORMAT_VERSION}."
        )
    wrong = next((key for key, good in _CHECKS.items() if not good(manifest.get(key))), None)
    if wrong is not None:
        raise ArtifactError(f"`{path}` is damaged: its `{wrong}` is missing or not what it was.")
    return manifest


def _inputs(value: object) -> bool:
    return (
        isinstance(value, list)
        and bool(value)
        and all(isinstance(v, dict) and _input(v) for v in value)
        and sum(math.prod(v["shape"]) for v in value) <= MAX_INPUT_VALUES
    )


def _input(spec: JsonObject) -> bool:
    shape, limits = spec.get("shape"), spec.get("range", [0, 1])
    return (
        isinstance(shape, list)
        and len(shape) <= 16
        and all(type(n) is int and 0 <= n <= MAX_INPUT_VALUES for n in shape)
        and spec.get("dtype") in DTYPES
        and isinstance(spec.get("name", ""), str)
        and isinstance(limits, list)
        and len(limits) == 2
        and all(type(n) is int and abs(n) < 1 << 62 for n in limits)
        and limits[0] <= limits[1]
        and _batch(spec.get("batch", 0), len(shape))
        and _varies(spec.get("varies", {}), len(shape))
    )


def _batch(axis: object, rank: int) -> bool:
    return axis == "none" or (type(axis) is int and 0 <= axis < max(1, rank))


def _varies(value: object, rank: int) -> bool:
    try:
        return all(axis < rank for axis in spans_from_json(value))
    except (ValueError, TypeError):
        return False


def _sample(value: object) -> bool:
    if not isinstance(value, dict):
        return False
    seed, outputs, sizes = value.get("seed"), value.get("outputs"), value.get("sizes", [])
    return (
        type(seed) is int
        and 0 <= seed < 1 << 62
        and _values(outputs)
        and isinstance(sizes, list)
        and len(sizes) <= 4
        and all(_values(row) for row in sizes)
    )


def _values(row: object) -> bool:
    return (
        isinstance(row, list)
        and len(row) <= MAX_SAMPLE_VALUES
        and all((type(n) in (int, float) and abs(n) < 1e300) or n != n for n in row)
    )


def _edits(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(e, dict) for e in value)


def _hashes(value: object) -> bool:
    """Of files of other libraries; names are theirs, never paths."""
    return isinstance(value, dict) and all(
        name in CONVERTED and isinstance(digest, str) for name, digest in value.items()
    )


_CHECKS: dict[str, Callable[[object], bool]] = {
    "inputs": _inputs,
    "sample": _sample,
    "edits": _edits,
    "runtime": lambda value: isinstance(value, str),
    "weights_sha256": lambda value: isinstance(value, str),
    "source_sha256": lambda value: isinstance(value, str),
    "package_sha256": lambda value: value is None or isinstance(value, str),
    "converted_sha256": lambda value: value is None or _hashes(value),
    "graph_sha256": lambda value: value is None or isinstance(value, str),
}
