"""A model as the ATen graph of `torch.export`: the one form everything else works on."""

from __future__ import annotations

import copy
import warnings
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram
from torch.fx import GraphModule, Node

from ..core.errors import CaptureError
from .canonical import canonicalise

Inputs = tuple[Tensor, ...]


def export(model: nn.Module, inputs: Inputs) -> ExportedProgram:
    """Export `model` (set to eval) with a dynamic batch where the model allows it.

    `inputs` are example tensors whose first dimension is the batch. Raises CaptureError with the
    exporter's first line where neither a dynamic nor a fixed batch can be captured.
    """
    model.eval()
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        try:
            return _export_dynamic(model, inputs)
        except Exception:
            # Models that compute with the batch size as a number can only be captured fixed.
            try:
                return torch.export.export(model, inputs)
            except Exception as error:
                first = str(error).strip().splitlines()[0] if str(error).strip() else repr(error)
                raise CaptureError(
                    f"`torch.export` can't capture `{type(model).__name__}` with inputs "
                    f"{[tuple(x.shape) for x in inputs]}: {first}"
                ) from error


def _export_dynamic(model: nn.Module, inputs: Inputs) -> ExportedProgram:
    # A batch of 1 would be specialised (torch treats 0 and 1 as constants), so two rows are shown.
    shown = tuple(torch.cat([x[:1], x[:1]]) if x.dim() else x for x in inputs)
    batch = Dim("batch", min=1)
    shapes = tuple({0: batch} if x.dim() else None for x in inputs)
    # A graph module takes its inputs positionally under *args where its forward says so.
    return torch.export.export(model, shown, dynamic_shapes=_like(model, shapes))


def _like(model: nn.Module, shapes: tuple[Any, ...]) -> Any:
    import inspect

    parameters = list(inspect.signature(model.forward).parameters.values())
    if parameters and parameters[0].kind is inspect.Parameter.VAR_POSITIONAL:
        return (shapes,)
    return shapes


def module_of(program: ExportedProgram) -> GraphModule:
    """The program as a callable graph with its parameters under their own names."""
    module = program.module(check_guards=False)
    assert isinstance(module, GraphModule)
    return canonicalise(module)


def capture(model: nn.Module, inputs: Inputs) -> GraphModule:
    """`model` as an editable graph module in eval mode. The model itself is not changed."""
    return module_of(export(model, inputs))


def clone(module: GraphModule) -> GraphModule:
    """A deep copy whose weights and graph can be edited without touching `module`."""
    return copy.deepcopy(module)


def has_dynamic_batch(module: GraphModule) -> bool:
    for node in module.graph.nodes:
        value = node.meta.get("val") if node.op == "placeholder" else None
        if isinstance(value, Tensor) and value.dim() and isinstance(value.shape[0], torch.SymInt):
            return True
    return False


def tensor_at(module: nn.Module, name: str) -> Tensor:
    """The parameter or buffer called `name` (dotted)."""
    owner, _, leaf = name.rpartition(".")
    value = getattr(module.get_submodule(owner), leaf)
    assert isinstance(value, Tensor)
    return value


def node_named(module: GraphModule, name: str) -> Node | None:
    return next((n for n in module.graph.nodes if n.name == name), None)
