"""Switch a captured graph between evaluation and training.

Export bakes `training=False` into batch norm and dropout as an argument; flipping the argument is
all it takes (PyTorch issue tracker: exported modules refuse `.train()`).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.fx import GraphModule

from .mutation import is_last_write

aten: Any = torch.ops.aten
ALWAYS = "modelspeed_always_training"
STATE = "modelspeed_writes_state"
_TRAINING_ARGUMENT: dict[Any, int] = {
    aten.batch_norm.default: 5,
    aten.dropout.default: 2,
    aten.dropout_.default: 2,
    aten.feature_dropout.default: 2,
    aten.feature_dropout_.default: 2,
}


def set_training(module: GraphModule, batch_norm: bool, dropout: bool) -> None:
    """What is in training mode by itself (norms without statistics, dropout at all times) stays."""
    for node in module.graph.nodes:
        at = _TRAINING_ARGUMENT.get(node.target)
        if at is None or node.meta.setdefault(ALWAYS, bool(node.args[at])):
            continue
        wanted = batch_norm if node.target is aten.batch_norm.default else dropout
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
    return any(n.target is aten.batch_norm.default for n in module.graph.nodes)
