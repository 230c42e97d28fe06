"""TorchScript archives: programs of their own, which can be run but not changed."""

from __future__ import annotations

import warnings
from pathlib import Path

import torch

from ..core.errors import CheckpointError, UnsafePickle, first_line
from ..core.files import sha256
from .read import Source
from .weights import check_finite


def read_script(path: Path, *, trust_pickle: bool) -> Source:
    """Raises UnsafePickle without `trust_pickle`, CheckpointError where it can't be read."""
    if not trust_pickle:
        raise UnsafePickle(
            f"`{path}` is a TorchScript archive, a program of its own; pass `--trust-pickle` only "
            "if you trust its source."
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            module = torch.jit.load(path, map_location="cpu")  # type: ignore[no-untyped-call]
    except Exception as error:
        raise CheckpointError(f"`{path}` can't be read: {first_line(error)}") from error
    check_finite(path, module.state_dict())
    return Source(path, "torchscript", module.eval(), None, sha256(path))
