"""Handing a graph over to another library: what it needs here, the graph as a flat function, and
the module that runs what came of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn
from torch.fx import GraphModule, Node
from torch.fx.graph import CodeGen

from ..core.errors import MeasureError
from ..core.extras import is_installed
from ..core.model_io import Inputs
from ..graph.lowering.lower import can_prepack
from ..graph.lowering.packing import tidy
from ..profiling.clocks import POOL
from .by_shape import CompiledByShape
from .shape_guard import Fast, ShapeGuarded, names_of


def lacks_library(device: str, extra: str, *packages: str) -> str | None:
    """The thing that is missing to run on `device`: libraries run on a CPU, and their packages come
    with an extra of modelspeed. None if nothing is."""
    if torch.device(device).type != "cpu":
        return "needs `--device cpu`, the only one that it runs on here"
    for package in packages:
        if not is_installed(package):
            return f"needs the package `{package}` (`pip install 'modelspeed[{extra}]'`)"
    return None


def is_float32(module: GraphModule, inputs: Inputs) -> bool:
    """True if all of its floats are: half precision stays with torch's kernels."""
    floats = (p for p in module.parameters() if p.is_floating_point())
    return can_prepack(inputs) and all(p.dtype == torch.float32 for p in floats)


def by_place(module: GraphModule) -> GraphModule:
    """In place: a function of inputs by place, its outputs flat.

    Raises MeasureError for outputs that are not tensors.
    """
    leaves = module.graph.output_node().args[0]
    leaves = leaves if isinstance(leaves, (list, tuple)) else [leaves]
    if not all(isinstance(leaf, Node) for leaf in leaves):
        raise MeasureError("an output is not a tensor")
    tidy(module)
    module.graph.set_codegen(CodeGen())
    module.recompile()
    return module


def running_on_library(
    usual: nn.Module,
    module: GraphModule,
    inputs: Inputs,
    pool: str,
    library: str,
    compile: Callable[[Sequence[Any]], Fast],
) -> ShapeGuarded:
    """`compile`'s functions on the threads of `pool`; `usual` for inputs that they do not take.

    Raises MeasureError, with the name of the library, where it does not take the graph.
    """
    shapes = CompiledByShape(library, compile)
    shapes.first(inputs.in_order(names_of(module)))
    guarded = ShapeGuarded(usual, module, shapes.of)
    setattr(guarded, POOL, pool)
    return guarded
