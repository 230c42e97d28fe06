"""A prepared module called once, to find out whether it runs here at all."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import nn
from torch.fx import GraphModule

from ..core.errors import text_line
from ..core.model_io import Inputs
from ..profiling.clocks import POOL, pool_of
from ..profiling.state import kept_state
from .protocol import Backend


def runner(module: nn.Module, inputs: Inputs) -> Callable[[], object]:
    """A call without gradients, as a user's inference loop makes it."""

    def run() -> object:
        with torch.inference_mode():
            return inputs.call(module)

    setattr(run, POOL, pool_of(module))
    return run


def called_once(prepare: Callable[[], nn.Module], inputs: Inputs) -> nn.Module | str:
    """The module that `prepare` makes, called once on `inputs`; or the reason it can't run here.

    Kernels and compilers refuse in errors of many kinds, some at the call only: whatever they
    raise, the run goes on without them.
    """
    try:
        module = prepare()
        with kept_state(module):
            runner(module, inputs)()
        return module
    except Exception as error:
        return text_line(error)


def furthest(
    backends: Iterable[Backend], module: GraphModule, inputs: Inputs
) -> tuple[Backend, str] | None:
    """The furthest name that runs here: int8 and half precision are fast on packed weights
    alone, and sparse weights on those of a GPU."""
    pairs = [(b, n) for b in backends for n in b.names(module, inputs) if n in b.packed]
    for backend, name in reversed(pairs):
        runnable = called_once(lambda b=backend, n=name: b.prepare(module, inputs, n), inputs)  # type: ignore[misc]
        if not isinstance(runnable, str):
            return backend, name
    return None
