"""The graph as exported, on torch's own operators: what all others are compared with."""

from __future__ import annotations

from torch import nn
from torch.fx import GraphModule

from ..core.model_io import Inputs
from ..graph.capture import clone
from ..graph.lowering.direct_call import without_pytree
from ..profiling.layers import node_times

PLAIN = "plain"


class Plain:
    name: str = PLAIN
    known: tuple[str, ...] = (PLAIN,)
    packed: tuple[str, ...] = ()
    offered = True
    per_candidate = True
    by_shape = False
    needs_compiler = False
    any_format = False
    profiles_itself = False
    version = ""

    def lacks(self, device: str) -> str | None:
        return None

    def names(self, module: GraphModule, inputs: Inputs) -> tuple[str, ...]:
        return (PLAIN,)

    def graph(self, module: GraphModule, inputs: Inputs, name: str) -> GraphModule:
        return clone(module)

    def node_times(self, module: GraphModule, inputs: Inputs, name: str) -> dict[str, float]:
        return node_times(self.graph(module, inputs, name), inputs)

    def prepare(
        self, module: GraphModule, inputs: Inputs, name: str, blob: bytes | None = None
    ) -> nn.Module:
        return without_pytree(clone(module))

    def blob(self, module: GraphModule, inputs: Inputs) -> bytes | None:
        return None
