"""Switch a captured graph between evaluation and training.

Export bakes `training=False` into batch norm and dropout as an argument; flipping the argument is
all it takes (PyTorch issue tracker: exported modules refuse `.train()`).
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.fx import GraphModule

from ..core.errors import DataError, ModelspeedError, text_line
from .mutation import is_last_write
from .operators import aten

ALWAYS = "modelspeed_always_training"
STATE = "modelspeed_writes_state"
_TRAINING_ARGUMENT: dict[object, int] = {
    aten.batch_norm.default: 5,
    aten.dropout.default: 2,
    aten.dropout_.default: 2,
    aten.feature_dropout.default: 2,
    aten.feature_dropout_.default: 2,
}


class NoGradient(DataError):
    """Something in the model has no derivative, or fails where one is asked for."""


@contextmanager
def gradients() -> Iterator[None]:
    """Gradients inside the block. Raises NoGradient where an operator of the user's has none."""
    with torch.enable_grad(), warnings.catch_warnings():
        # Left at a warning, all layers before such an operator would get no gradient at all.
        warnings.filterwarnings("error", message=r"[\s\S]*autograd kernel was not registered")
        try:
            yield
        except (ModelspeedError, MemoryError, torch.OutOfMemoryError):
            raise
        except Exception as error:
            if "allocate memory" in str(error):  # how the CPU's allocator says it
                raise
            first = text_line(error).partition(". ")[0]
            raise NoGradient(
                f"no gradient can be taken through this model ({type(error).__name__}: {first})"
            ) from error


def norm_of_several(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    mean: Tensor | None,
    variance: Tensor | None,
    training: bool,
    *rest: float | bool,
) -> Tensor:
    """A batch norm in training, which keeps its statistics where it sees one value per channel:
    that has no variance, and the running one would become NaN."""
    several = x.numel() > x.shape[1]
    output: Tensor = aten.batch_norm.default(
        x, weight, bias, mean, variance, training and several, *rest
    )
    return output


NORMS = (aten.batch_norm.default, norm_of_several)


def set_training(module: GraphModule, batch_norm: bool, dropout: bool) -> None:
    """Switch to training; what trains by itself (norms without statistics, lasting dropout)
    stays."""
    for node in module.graph.nodes:
        norm = node.target in NORMS
        at = _TRAINING_ARGUMENT.get(aten.batch_norm.default if norm else node.target)
        if at is None or node.meta.setdefault(ALWAYS, bool(node.args[at])):
            continue
        wanted = batch_norm if norm else dropout
        if norm:
            node.target = norm_of_several if batch_norm else aten.batch_norm.default
        node.args = (*node.args[:at], wanted, *node.args[at + 1 :])
    _write_state(module, not batch_norm)
    module.recompile()


def _write_state(module: GraphModule, wanted: bool) -> None:
    """Batches in any order have no state in common, and gradients need it as it was read."""
    for node in module.graph.nodes:
        if not wanted and is_last_write(node):
            node.target, node.meta[STATE] = aten.copy.default, True
        elif wanted and node.meta.pop(STATE, False):
            node.target = aten.copy_.default


@contextmanager
def training(module: GraphModule, *, dropout: bool = True) -> Iterator[GraphModule]:
    """Training mode inside the block, evaluation after it, whatever happens."""
    set_training(module, True, dropout)
    try:
        yield module
    finally:
        set_training(module, False, False)


@contextmanager
def evaluating(module: GraphModule, *, dropout: bool = True) -> Iterator[GraphModule]:
    """Evaluation mode inside a `training` block, which goes on after it."""
    set_training(module, False, False)
    try:
        yield module
    finally:
        set_training(module, True, dropout)


def has_batch_norm(module: GraphModule) -> bool:
    return any(n.target in NORMS for n in module.graph.nodes)
