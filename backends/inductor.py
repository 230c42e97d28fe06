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

from ..core.errors import MeasureError, text_line
from ..core.model_io import Inputs
from ..graph.capture import clone
from ..graph.lowering.direct_call import without_pytree
from ..graph.lowering.lower import folded_copy
from ..profiling.layers import node_times
from . import aoti
from .compiler import lacks_compiler, refuse_state
from .cuda_graph import CudaGraph, recorded_call
from .lowered import Lowered
from .protocol import Backend
from .readiness import furthest
from .shape_guard import Fast, ShapeGuarded, for_inputs, names_of

INDUCTOR = "inductor"
LOWERINGS: tuple[Backend, ...] = (Lowered(), CudaGraph())


class Inductor:
    """Compiled ahead of time where that works (aoti.py), else in the process that loads it."""

    name: str = INDUCTOR
    known: tuple[str, ...] = (INDUCTOR,)
    packed: tuple[str, ...] = ()
    offered = True
    per_candidate = False
    by_shape = True
    needs_compiler = True
    any_format = False
    profiles_itself = False
    version = ""

    def lacks(self, device: str) -> str | None:
        return lacks_compiler(device)

    def names(self, module: GraphModule, inputs: Inputs) -> tuple[str, ...]:
        return () if self.lacks(str(inputs[0].device)) else self.known

    def graph(self, module: GraphModule, inputs: Inputs, name: str) -> GraphModule:
        return clone(module)  # compiled code has no operators to tell apart

    def node_times(self, module: GraphModule, inputs: Inputs, name: str) -> dict[str, float]:
        return node_times(self.graph(module, inputs, name), inputs)

    def prepare(
        self, module: GraphModule, inputs: Inputs, name: str, blob: bytes | None = None
    ) -> nn.Module:
        """Without a compiler the furthest lowering is as near."""
        usual = _usual(module, inputs)
        if blob is not None:
            return aoti.load_package(blob, usual, module, inputs)
        return usual if self.lacks(str(inputs[0].device)) else compiled(module, usual, inputs)

    def blob(self, module: GraphModule, inputs: Inputs) -> bytes | None:
        return aoti.build_package(module, inputs)


def _usual(module: GraphModule, inputs: Inputs) -> nn.Module:
    """The way other shapes run: on the operators of the furthest lowering, not as recordings."""
    choice = furthest(LOWERINGS, module, inputs)
    graph = clone(module) if choice is None else choice[0].graph(module, inputs, choice[1])
    return without_pytree(graph)


def compiled(module: GraphModule, usual: nn.Module, inputs: Inputs) -> ShapeGuarded:
    """`module` compiled for `inputs`, in seconds to minutes; `usual` is how other shapes run.

    On a GPU the compiled call is recorded as a CUDA graph, where CUDA takes it.

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
            fast = recorded_call(fast, given)
    except Exception as error:
        first = text_line(error)
        raise MeasureError(f"torch.compile fails on this model: {first}.") from error
    return for_inputs(usual, module, inputs, fast)
