"""The graph rewritten to this device's fast kernels (graph/lowering), called without wrapping."""

from __future__ import annotations

from torch import nn
from torch.fx import GraphModule

from ..core.model_io import Inputs
from ..graph.capture import clone
from ..graph.lowering.direct_call import holding, without_pytree
from ..graph.lowering.lower import lowerings
from ..profiling.layers import node_times
from .layer_race import worth_packing

LOWERED = "lowered"
PACKED = ("onednn", "onednn_channels_last")


class Lowered:
    """`lowered` itself is what a user asks for; a manifest names the lowering that was fastest."""

    name: str = LOWERED
    known: tuple[str, ...] = (LOWERED, "folded", "channels_last", *PACKED)
    packed: tuple[str, ...] = PACKED
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
        return tuple(lowerings(module, inputs))

    def graph(self, module: GraphModule, inputs: Inputs, name: str) -> GraphModule:
        return lowerings(module, inputs, worth_packing).get(name, lambda: clone(module))()

    def node_times(self, module: GraphModule, inputs: Inputs, name: str) -> dict[str, float]:
        return node_times(self.graph(module, inputs, name), inputs)

    def prepare(
        self, module: GraphModule, inputs: Inputs, name: str, blob: bytes | None = None
    ) -> nn.Module:
        return holding(without_pytree(self.graph(module, inputs, name)))

    def blob(self, module: GraphModule, inputs: Inputs) -> bytes | None:
        return None
