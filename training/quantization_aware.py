"""A graph in integers as one that can be trained, and its weights back.

Integer weights become float ones that are rounded at every call; gradients pass all roundings as if
they were not there (Jacob et al. 2018, section 3; Bengio et al. 2013).
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.fx import GraphModule, Node

from ..graph.capture import clone, tensor_at
from ..graph.edits.integer_weights import Grid, IntegerWeight, integer_weight
from ..graph.edits.quantization import rounded, rounded_dynamic
from ..graph.lowering.packing import Packs, insert_call, tidy


def round_through(x: Tensor) -> Tensor:
    return x + (x.round() - x).detach()


def weight_through(weight: Tensor, scale: Tensor, minimum: Tensor, qmin: int, qmax: int) -> Tensor:
    """The nearest values on the grid, of the weight's shape; beyond its ends nothing passes."""
    flat = weight.flatten(1)
    steps = round_through(((flat - minimum) / scale).clamp(qmin, qmax))
    return (steps * scale + minimum).view(weight.shape)


def held_in_integers(module: GraphModule) -> dict[Node, IntegerWeight]:
    weights = ((node, integer_weight(node)) for node in module.graph.nodes)
    return {node: weight for node, weight in weights if weight is not None}


def trainable(module: GraphModule) -> GraphModule:
    """A copy to train; the module itself where it holds no integers."""
    if not held_in_integers(module):
        return module
    trained = clone(module)
    packs = Packs(trained)
    for node, packed in held_in_integers(trained).items():
        grid = packed.grid(trained)
        owner, _, leaf = packed.integers.rpartition(".")
        setattr(trained.get_submodule(owner), leaf, nn.Parameter(packed.floats(trained)))
        with trained.graph.inserting_before(node):
            weight = trained.graph.get_attr(packed.integers)
        ranges = [packs.add(t.contiguous(), node) for t in (grid.scale, grid.minimum)]
        through = insert_call(
            trained, node, weight_through, (weight, *ranges, grid.qmin, grid.qmax)
        )
        node.replace_all_uses_with(through)
    for node in trained.graph.nodes:
        if rounded(node) is not None or rounded_dynamic(node) is not None:
            node.args[0].args[0].target = round_through
    return tidy(trained)


def store_integers(trained: GraphModule, module: GraphModule) -> None:
    """Put the weights of `trained`, made of `module` by `trainable`, back in their integers."""
    if trained is module:
        return
    integers = {packed.integers: packed for packed in held_in_integers(module).values()}
    for name, value in trained.state_dict().items():
        packed = integers.get(name)
        if packed is not None:
            value = packed.stored(nearest_steps(packed.grid(module), value))
        tensor_at(module, name).data.copy_(value)


def nearest_steps(grid: Grid, weight: Tensor) -> Tensor:
    steps = ((weight.flatten(1) - grid.minimum) / grid.scale).round()
    return steps.clamp(grid.qmin, grid.qmax).view(weight.shape)
