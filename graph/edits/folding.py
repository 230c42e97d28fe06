"""Batch-norm folding: an eval-mode batch norm is an affine map, so it merges into the layer before.

w' = w * gamma / sqrt(var + eps),  b' = (b - mean) * gamma / sqrt(var + eps) + beta, per output
channel, computed in float64 (Jacob et al. 2018, section 3.2).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.fx import GraphModule, Node
from torch.fx.node import Argument

from ...core.errors import EditError
from ..capture import tensor_at
from ..layers import CONVOLUTIONS
from ..mutation import is_written
from ..operators import aten
from ..transposed import TRANSPOSED, groups_of, turned

LAYERS = {aten.linear.default, *CONVOLUTIONS, *TRANSPOSED}


def foldable(node: Node) -> bool:
    """A batch norm in eval mode whose input is a layer that nothing else reads."""
    if node.target is not aten.batch_norm.default or node.args[5]:
        return False
    layer = node.args[0]
    if not isinstance(layer, Node) or layer.target not in LAYERS or len(layer.users) != 1:
        return False
    vectors = [layer.args[1], *node.args[1:5]]
    if len(layer.args) > 2 and layer.args[2] is not None:
        vectors.append(layer.args[2])
    weight = layer.args[1]
    # Tied weights feed several layers; scaling them for one would change the others.
    single = isinstance(weight, Node) and len(weight.users) == 1
    known = all(
        v is None or (isinstance(v, Node) and v.op == "get_attr" and not is_written(v))
        for v in vectors
    )
    return single and known and node.args[3] is not None and node.args[4] is not None


def folded(
    weight: Tensor, bias: Tensor | None, norm: tuple[Tensor | None, ...], eps: float
) -> tuple[Tensor, Tensor]:
    """Weight [O, ...] and bias [O] after folding `norm` = (gamma, beta, mean, var)."""
    gamma, beta, mean, var = (None if t is None else t.detach().double() for t in norm)
    assert mean is not None and var is not None
    scale = (var + eps).rsqrt() * (1.0 if gamma is None else gamma)
    start = torch.zeros_like(mean) if bias is None else bias.detach().double()
    shift = (start - mean) * scale + (0.0 if beta is None else beta)
    shape = (-1, *(1,) * (weight.dim() - 1))
    return (weight.detach().double() * scale.view(shape)).to(weight.dtype), shift.to(weight.dtype)


def fold_batchnorm(module: GraphModule, node: Node) -> None:
    """Fold batch norm `node` of `module` in place. Raises EditError where it is not foldable."""
    if not foldable(node):
        raise EditError(f"`{node.name}` is not a batch norm that can be folded into a layer.")
    layer = node.args[0]
    assert isinstance(layer, Node) and isinstance(layer.args[1], Node)
    bias_node = layer.args[2] if len(layer.args) > 2 else None
    bias = _tensor(module, bias_node)
    norm = tuple(_tensor(module, v) for v in node.args[1:5])
    name = str(layer.args[1].target)
    groups = groups_of(layer) if layer.target in TRANSPOSED else 0
    start = tensor_at(module, name)
    forward = turned(start, groups) if groups else start
    weight, shift = folded(forward, bias, norm, float(node.args[7]))  # type: ignore[arg-type]
    _set(module, name, turned(weight, groups) if groups else weight)
    bias_name = name.removesuffix("weight") + "bias" if name.endswith("weight") else name + "_bias"
    _set(module, bias_name, shift)
    with module.graph.inserting_before(layer):
        new = module.graph.get_attr(bias_name)
    new.meta["val"] = node.meta["val"].new_empty(shift.shape) if "val" in node.meta else shift
    layer.args = (*layer.args[:2], new, *layer.args[3:])
    vectors = [v for v in node.args[1:5] if isinstance(v, Node)]
    node.replace_all_uses_with(layer)
    module.graph.erase_node(node)
    for vector in vectors:
        _drop(module, vector)


def _drop(module: GraphModule, vector: Node) -> None:
    """Remove a folded norm's tensor where nothing else reads it."""
    if vector.users:
        return
    name = str(vector.target)
    module.graph.erase_node(vector)
    if any(n.op == "get_attr" and n.target == name for n in module.graph.nodes):
        return
    owner, _, leaf = name.rpartition(".")
    delattr(module.get_submodule(owner), leaf)


def _tensor(module: GraphModule, node: Argument) -> Tensor | None:
    return tensor_at(module, str(node.target)) if isinstance(node, Node) else None


def _set(module: GraphModule, name: str, value: Tensor) -> None:
    owner, _, leaf = name.rpartition(".")
    holder = module.get_submodule(owner)
    if leaf not in holder._parameters and hasattr(holder, leaf):
        delattr(holder, leaf)
    setattr(holder, leaf, nn.Parameter(value, requires_grad=False))
