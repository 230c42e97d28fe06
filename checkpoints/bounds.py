"""A limit on what a configuration makes a library build: about what its weights hold."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from math import prod
from pathlib import Path

from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from torch.nn.modules.module import register_module_parameter_registration_hook

from ..core.errors import CheckpointError, first_line
from .shards import shards_of

# A model is filled after it was built, tied and cast, each of which registers its weights again.
TIMES = 8
SPARE_TENSORS, SPARE_VALUES = 2000, 1 << 27
UNKNOWN = (20_000, 1 << 36)  # where no weights lie beside the configuration
COUNTS = re.compile(r"layer|depth|block|head|expert|stage|group")
MAX_REPEATS = 100_000
DEEPEST = 20


@contextmanager
def bounded(what: Path, tensors: int, values: int) -> Iterator[None]:
    """Inside, more parameters than about these raise CheckpointError as soon as they are made."""
    most, largest = TIMES * tensors + SPARE_TENSORS, TIMES * values + SPARE_VALUES
    totals = [0, 0]

    def count(_module: nn.Module, _name: str, parameter: nn.Parameter) -> None:
        totals[0] += 1
        totals[1] += parameter.numel() if parameter is not None else 0
        if totals[0] > most or totals[1] > largest:
            raise CheckpointError(
                f"`{what}` describes a model far larger than its {tensors:,} weights."
            )

    handle = register_module_parameter_registration_hook(count)
    try:
        yield
    finally:
        handle.remove()


def check_repeats(what: Path, config: object, depth: int = 0) -> None:
    """Raises CheckpointError for numbers of layers, heads and the like that no model has."""
    if depth > DEEPEST:
        raise CheckpointError(f"`{what}` is nested deeper than any configuration.")
    parts = config.items() if isinstance(config, Mapping) else ()
    for key, value in parts:
        for number in value if isinstance(value, list) else [value]:
            if COUNTS.search(str(key)) and type(number) in (int, float) and number > MAX_REPEATS:
                raise CheckpointError(
                    f"`{what}`: `{str(key)[:60]}` is {number:.6g}; at most {MAX_REPEATS:,} are "
                    "built."
                )
            check_repeats(what, number, depth + 1)


def size_of_weights(file: Path | None, loaded: object = None) -> tuple[int, int]:
    """Numbers of tensors and values in the weights; only the headers of safetensors are read."""
    if file is None:
        return UNKNOWN
    if isinstance(loaded, Mapping):
        shapes = [v.numel() for v in loaded.values() if isinstance(v, Tensor)]
        return len(shapes), sum(shapes)
    names = set(shards_of(file).values()) if file.suffix == ".json" else {file.name}
    tensors, values = 0, 0
    for name in sorted(names):
        for shape in _shapes(file.parent / name):
            tensors, values = tensors + 1, values + prod(shape[:64])
    return tensors, values


def _shapes(file: Path) -> list[list[int]]:
    try:
        with safe_open(file, "pt") as weights:
            return [weights.get_slice(name).get_shape() for name in weights.keys()]
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(
            f"`{file}` is truncated or no safetensors file: {first_line(error)}"
        ) from error
