"""The compiler behind torch's inductor: whether this machine has one, and what it doesn't take."""

from __future__ import annotations

import torch
from torch.fx import GraphModule

from ..core.errors import MeasureError
from ..graph.mutation import hazards
from ..graph.state import written_buffers


def lacks_compiler(device: str) -> str | None:
    """The thing that is missing here to compile for `device`, None if nothing is."""
    if torch.device(device).type == "cuda":
        from torch.utils._triton import has_triton

        return None if has_triton() else "needs triton for GPUs, and it isn't installed"
    from torch._inductor.cpp_builder import get_cpp_compiler

    try:
        get_cpp_compiler()
    except RuntimeError:
        return "needs a C++ compiler, and torch finds none (it looks for `CXX`, else `g++`)"
    return None


def refuse_state(module: GraphModule) -> None:
    """Raises MeasureError for a graph that writes tensors of its own: the compiler freezes them."""
    if hazards(module):
        raise MeasureError("the model overwrites values in a way that is not compiled")
    if names := written_buffers(module):
        raise MeasureError(f"each call writes `{names[0]}`, which compiled code would freeze")
