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
    found = ((node, integer_weight(node)) for node in module.graph.nodes)
    return {node: held for node, held in found if held is not None}


def trainable(module: GraphModule) -> GraphModule:
    """A copy to train; the module itself where it holds no integers."""
    if not held_in_integers(module):
        return module
    made = clone(module)
    packs = Packs(made)
    for node, held in held_in_integers(made).items():
        grid = held.grid(made)
        owner, _, leaf = held.integers.rpartition(".")
        setattr(made.get_submodule(owner), leaf, nn.Parameter(held.floats(made)))
        with made.graph.inserting_before(node):
            weight = made.graph.get_attr(held.integers)
        ranges = [packs.add(t.contiguous(), node) for t in (grid.scale, grid.minimum)]
        through = insert_call(made, node, weight_through, (weight, *ranges, grid.qmin, grid.qmax))
        node.replace_all_uses_with(through)
    for node in made.graph.nodes:
        if rounded(node) is not None or rounded_dynamic(node) is not None:
            node.args[0].args[0].target = round_through
    return tidy(made)


def store_integers(trained: GraphModule, module: GraphModule) -> None:
    """Put the weights of `trained`, made of `module` by `trainable`, back in their integers."""
    if trained is module:
        return
    integers = {held.integers: held for held in held_in_integers(module).values()}
    for name, value in trained.state_dict().items():
        held = integers.get(name)
        new = held.stored(nearest_steps(held.grid(module), value)) if held is not None else value
        tensor_at(module, name).data.copy_(new)


def nearest_steps(grid: Grid, weight: Tensor) -> Tensor:
    steps = ((weight.flatten(1) - grid.minimum) / grid.scale).round()
    return steps.clamp(grid.qmin, grid.qmax).view(weight.shape)
