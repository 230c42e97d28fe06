"""The mean shift of a layer's outputs by rounding, taken back out of its bias.

Nagel et al. 2019, section 4.2, with the mean taken from training data: in one pass over the float
graph every layer also runs as it will in int8, on the same inputs.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor
from torch.fx import GraphModule, Node

from ...graph.capture import node_named, tensor_at
from ...graph.edits.integer_weights import integer_weight
from ...graph.interpreter import Recorder
from ...graph.layers import Layer, layers_of
from ..plan import Context
from .calibration import batches

Steps = Mapping[str, tuple[float, int]]


def corrected_biases(
    context: Context,
    module: GraphModule,
    integer: GraphModule,
    chosen: Iterable[Node],
    steps: Steps,
    levels: int,
    examples: int,
) -> dict[str, Tensor]:
    """New biases by name for the `chosen` layers of `module`, those that have one of their own.

    `integer` is the module with their weights in integers. `steps`: scale and zero point of what a
    layer reads, by the node's name; what is not among them stays float. Nothing without training
    data.
    """
    wanted = set(chosen)
    uses = [str(n.target) for n in module.graph.nodes if n.op == "get_attr" for _ in n.users]
    layers = [
        one for one in layers_of(module)
        if one.node in wanted and one.bias is not None and uses.count(one.bias) == 1
    ]  # fmt: skip
    watched = _Both(module, layers, steps, levels)
    watched.weights = {n: _near(integer, n.name) for n in watched.layers}
    with torch.no_grad():
        for given in batches(context, examples):
            watched.of(given)
    return {
        str(layer.bias): tensor_at(module, str(layer.bias)).detach() + watched.shift(layer.node)
        for layer in layers
        if layer.node in watched.gaps
    }


class _Both(Recorder):
    """Runs the float graph, and each layer in int8 beside it."""

    def __init__(
        self, module: GraphModule, layers: Iterable[Layer], steps: Steps, levels: int
    ) -> None:
        super().__init__(module)
        self.layers = {layer.node: layer for layer in layers}
        self.steps, self.levels = steps, levels
        self.weights: dict[Node, Tensor] = {}
        self.gaps: dict[Node, tuple[Tensor, int]] = {}

    def run_node(self, n: Node) -> object:
        output = super().run_node(n)
        layer = self.layers.get(n)
        if layer is not None:
            (read, _, *rest), kwargs = self.fetch_args_kwargs_from_env(n)
            assert isinstance(read, Tensor) and callable(n.target)
            beside = n.target(self._rounded(read, layer.source), self.weights[n], *rest, **kwargs)
            gap = (output - beside).movedim(layer.channel_axis, -1).flatten(0, -2)
            total, count = self.gaps.get(n, (torch.zeros_like(gap[0]), 0))
            self.gaps[n] = (total + gap.sum(0), count + len(gap))
        return output

    def _rounded(self, value: Tensor, source: Node) -> Tensor:
        if source.name not in self.steps:
            return value
        scale, zero = self.steps[source.name]
        return (value / scale).round().clamp(-zero, self.levels - zero) * scale

    def shift(self, node: Node) -> Tensor:
        """[out]: what the outputs miss on average."""
        total, count = self.gaps[node]
        return total / max(1, count)


def _near(integer: GraphModule, name: str) -> Tensor:
    node = node_named(integer, name)
    weight = integer_weight(node.args[1]) if node is not None else None
    assert weight is not None
    return weight.floats(integer)
