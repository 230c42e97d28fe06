"""One layer as two of a lower rank: to `rank` channels, then 1x1 to all of them.

With outputs y = W x + b and U the `rank` leading eigenvectors of their covariance, W becomes
U (U^T W): of all products of that rank the one whose outputs are nearest (Zhang et al. 2015,
section 3.1). It is the truncation that SVD-LLM (Wang et al. 2024, section 3.1) finds with the
Cholesky factor of the inputs' second moments, since U are also the left singular vectors of W L;
no inverse is needed. A convolution keeps its kernel in the first of the two.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.fx import GraphModule, Node

from ...core.errors import EditError
from ..capture import tensor_at
from ..layers import CONVOLUTIONS, Layer, layers_of
from ..operators import aten

_POINTWISE = {n: getattr(aten, f"conv{n}d").default for n in (1, 2, 3)}


def factorable(layer: Layer) -> str | None:
    """The reason why the layer can't be split, or None."""
    module = layer.node.graph.owning_module
    assert module is not None
    weight = tensor_at(module, layer.weight)
    if layer.groups > 1:
        return "grouped and depthwise convolutions have no rank to lower"
    if weight.dtype != torch.float32:
        return f"its weight is {str(weight.dtype).removeprefix('torch.')}, not float32"
    tied = sum(p is weight for _, p in module.named_parameters(remove_duplicate=False))
    if tied > 1 or any(_uses(layer.node, n) > 1 for n in (layer.weight, layer.bias) if n):
        return "its weight or bias is shared"
    return None


def _uses(node: Node, name: str) -> int:
    reads = [n for n in node.graph.nodes if n.op == "get_attr" and n.target == name]
    return sum(len(n.users) for n in reads)


def full_rank(weight: Tensor) -> int:
    """Of [out, in, *kernel] as a matrix."""
    return min(len(weight), weight[0].numel())


def factors(weight: Tensor, basis: Tensor) -> tuple[Tensor, Tensor]:
    """[rank, in, *kernel] and [out, rank, 1...] for orthonormal `basis` [out, rank]."""
    wide = weight.detach().double().flatten(1)
    first = (basis.T @ wide).reshape(-1, *weight.shape[1:])
    second = basis.reshape(*basis.shape, *(1,) * (weight.dim() - 2))
    # Eigenvectors come column by column.
    return first.to(weight.dtype).contiguous(), second.to(weight.dtype).contiguous()


def leading_eigenvectors(square: Tensor, rank: int) -> Tensor:
    """[n, rank]: the leading eigenvectors of a symmetric [n, n]."""
    vectors: Tensor = torch.linalg.eigh(square)[1]
    return vectors.flip(1)[:, :rank]


def new_name(module: GraphModule, weight: str, stem: str = "expand") -> str:
    """The parameter that another layer gets, beside `weight` of the first."""
    owner, _, leaf = weight.rpartition(".")
    stem = stem if leaf == "weight" else f"{leaf}_{stem}"
    name, number, holder = stem, 1, module.get_submodule(owner)
    while hasattr(holder, name):
        number += 1
        name = f"{stem}_{number}"
    return f"{owner}.{name}.weight" if owner else f"{name}.weight"


def factor(module: GraphModule, node: Node, rank: int) -> None:
    """Split layer `node` in place by its weight alone (all inputs count alike).

    The first of the two keeps names and inputs, the second follows it. Raises EditError where
    the layer can't be split so.
    """
    layer = next((one for one in layers_of(module) if one.node is node), None)
    reason = "it is not a layer" if layer is None else factorable(layer)
    if layer is None or reason:
        raise EditError(f"`{node.name}` can't be split in two: {reason}.")
    whole = tensor_at(module, layer.weight).detach()
    if not 0 < rank <= full_rank(whole):
        raise EditError(f"`{layer.weight}` has rank {full_rank(whole)}, so it can't have {rank}.")
    wide = whole.double().flatten(1)
    parts = factors(whole, leading_eigenvectors(wide @ wide.T, rank))
    name = new_name(module, layer.weight)
    holder, _, leaf = layer.weight.rpartition(".")
    setattr(module.get_submodule(holder), leaf, nn.Parameter(parts[0], requires_grad=False))
    hold(module, name, parts[1])
    bias = bias_of(module, layer, name, len(whole))
    target = _POINTWISE[layer.spatial_dims] if node.target in CONVOLUTIONS else node.target
    graph = module.graph
    with graph.inserting_after(node):
        second = graph.call_function(target, (node,))  # type: ignore[arg-type]
    with graph.inserting_before(second):
        weight = graph.get_attr(name)
        second.args = (node, weight, graph.get_attr(bias))
    _note(layer, second, rank)
    node.replace_all_uses_with(second, delete_user_cb=lambda user: user is not second)
    node.args = tuple(None if at == 2 else value for at, value in enumerate(node.args))
    node.kwargs = {k: v for k, v in node.kwargs.items() if k != "bias"}


def hold(module: GraphModule, name: str, value: Tensor) -> None:
    owner, _, leaf = name.rpartition(".")
    above, _, child = owner.rpartition(".")
    holder = module.get_submodule(above)
    if not hasattr(holder, child):
        holder.add_module(child, nn.Module())
    setattr(module.get_submodule(owner), leaf, nn.Parameter(value, requires_grad=False))


def bias_of(module: GraphModule, layer: Layer, second: str, size: int) -> str:
    """The layer's own, or one of zeros: what is cut off has a mean that a bias can hold."""
    if layer.bias is not None:
        return layer.bias
    name = second.removesuffix("weight") + "bias"
    like = tensor_at(module, layer.weight)
    hold(module, name, torch.zeros(size, dtype=like.dtype, device=like.device))
    return name


def _note(layer: Layer, second: Node, rank: int) -> None:
    """Later passes look at what a node gives."""
    value = layer.node.meta.get("val")
    if isinstance(value, Tensor):
        second.meta["val"] = value
        shape = list(value.shape)
        shape[layer.channel_axis] = rank
        layer.node.meta["val"] = value.new_empty(shape)
