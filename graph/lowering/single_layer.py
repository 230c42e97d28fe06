"""One layer of a graph as a graph of its own, with the activation that follows it."""

from __future__ import annotations

import copy

from torch import Tensor, nn
from torch.fx import Graph, GraphModule

from ..capture import tensor_at
from ..layers import Layer
from .fusing import activation_of


def single_layer(module: GraphModule, layer: Layer, example: Tensor) -> GraphModule:
    """The layer with copies of its weights; `example` is an input. Nodes keep their names."""
    root, graph = nn.Module(), Graph()
    parameters = {"weight": layer.weight} | ({"bias": layer.bias} if layer.bias else {})
    for name, source in parameters.items():
        value = tensor_at(module, source).detach().clone()
        setattr(root, name, nn.Parameter(value, requires_grad=False))
    data = graph.placeholder("x")
    data.meta["val"] = example
    copies = {layer.source: data}
    for node in layer.node.all_input_nodes:
        if node not in copies:
            bias = layer.bias is not None and node.target == layer.bias
            copies[node] = graph.get_attr("bias" if bias else "weight")
    call = graph.node_copy(layer.node, lambda n: copies[n])
    call.meta = copy.copy(layer.node.meta)
    act = activation_of(layer.node)
    end = graph.node_copy(act.node, lambda _: call) if act is not None else call
    graph.output(end)
    return GraphModule(root, graph)
