"""torch.compile's back end with frozen weights, straight on the captured graph.

What the tuned inputs' shapes need is compiled; other shapes run as the graph does. Without dynamo
in front there are no guards to pass on every call, and nothing recompiles behind the user's back.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import nn
from torch.fx import GraphModule
from torch.fx.graph import CodeGen

from ..core.errors import MeasureError, UsageError, text_line
from ..core.model_io import Inputs
from ..graph.lowering.lower import folded_copy
from ..graph.mutation import hazards
from ..graph.state import written_buffers
from .shape_guard import Fast, Specialised, for_inputs, names_of

INDUCTOR = "inductor"


def why_not(device: str) -> str | None:
    """What this machine lacks to compile for `device`, None where nothing."""
    if torch.device(device).type == "cuda":
        from torch.utils._triton import has_triton

        return None if has_triton() else "needs triton for GPUs, and it isn't installed"
    from torch._inductor.cpp_builder import get_cpp_compiler

    try:
        get_cpp_compiler()
    except RuntimeError:
        return "needs a C++ compiler, and torch finds none (it looks for `CXX`, else `g++`)"
    return None


def require(
    device: str, asked: str = "`--runtime inductor`", instead: str = "`--runtime lowered`"
) -> None:
    """Raises UsageError where nothing can be compiled here."""
    if reason := why_not(device):
        raise UsageError(
            f"{asked} {reason}; install one, such as the package `g++`, or use {instead}."
        )


def refuse_state(module: GraphModule) -> None:
    """Raises MeasureError for a graph that writes tensors of its own: the compiler freezes them."""
    if hazards(module):
        raise MeasureError("the model overwrites values in a way that is not compiled")
    if names := written_buffers(module):
        raise MeasureError(f"each call writes `{names[0]}`, which compiled code would freeze")


def compiled(module: GraphModule, usual: nn.Module, inputs: Inputs) -> Specialised:
    """`module` compiled for `inputs`, in seconds to minutes; `usual` is how other shapes run.

    Raises MeasureError with the compiler's first line where it fails.
    """
    refuse_state(module)
    import torch._inductor.config as settings
    from torch._inductor.compile_fx import compile_fx

    flat_graph = folded_copy(module)
    flat_graph.graph.set_codegen(CodeGen())
    flat_graph.recompile()
    given = [x.contiguous() for x in inputs.in_order(names_of(flat_graph))]
    try:
        # Frozen: weights are constants, so that they can be packed for the kernels.
        with settings.patch(freezing=True), torch.no_grad():
            fast = cast(Fast, compile_fx(flat_graph, given))
            fast(*given)
    except Exception as error:
        first = text_line(error)
        raise MeasureError(f"torch.compile fails on this model: {first}.") from error
    return for_inputs(usual, module, inputs, fast)
