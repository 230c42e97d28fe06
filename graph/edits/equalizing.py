"""Layers that hand channels on through positively homogeneous operators, and scales between them.

f(s x) = s f(x) for s > 0: what one layer's channel is divided by, the layers that read it can be
multiplied by, and the model computes the same (Nagel et al. 2019, section 4.1).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.fx import GraphModule, Node

from ...core.errors import EditError
from ..capture import tensor_at
from ..layers import Layer, layers_of
from ..operators import aten
from .quantization import quantizable

_HOMOGENEOUS = {
    aten.relu.default, aten.relu_.default, aten.leaky_relu.default, aten.leaky_relu_.default,
    aten.prelu.default, aten.contiguous.default, aten.clone.default,
    aten.dropout.default, aten.dropout_.default,
}  # fmt: skip
_POOLS = {  # by how many last axes they take together
    aten.max_pool1d.default: 1, aten.avg_pool1d.default: 1, aten.adaptive_avg_pool1d.default: 1,
    aten.max_pool2d.default: 2, aten.avg_pool2d.default: 2, aten.adaptive_avg_pool2d.default: 2,
}  # fmt: skip
_FLATTENING = (aten.flatten.using_ints, aten.view.default, aten.reshape.default)


@dataclass(frozen=True)
class Joint:
    """All that `maker` gives is read by `readers`, and by them channel for channel."""

    maker: Layer
    readers: tuple[Layer, ...]


def joints(module: GraphModule) -> list[Joint]:
    """In graph order; layers whose weight or bias something else reads too are not among them."""
    layers = {layer.node: layer for layer in layers_of(module)}
    candidates = (_joint(module, layer, layers) for layer in layers.values())
    return [joint for joint in candidates if joint is not None]


def _joint(module: GraphModule, maker: Layer, layers: Mapping[Node, Layer]) -> Joint | None:
    readers = _readers(maker, layers)
    outs = len(tensor_at(module, maker.weight))
    fits = all(outs == tensor_at(module, r.weight).shape[1] * r.groups for r in readers)
    own = fits and _biased_alone(maker) and all(quantizable(x.node) for x in (maker, *readers))
    return Joint(maker, tuple(readers)) if readers and own else None


def _biased_alone(layer: Layer) -> bool:
    reads = [n for n in layer.node.graph.nodes if n.op == "get_attr" and n.target == layer.bias]
    return sum(len(n.users) for n in reads) <= 1


def _readers(maker: Layer, layers: Mapping[Node, Layer]) -> list[Layer]:
    """None at all where something else reads the channels too, or they lose their places."""
    readers, left = [], [maker.node]
    while left:
        value = left.pop()
        for user in value.users:
            layer = layers.get(user)
            if layer is not None and user.args[0] is value and _aligned(maker, layer, value):
                readers.append(layer)
            elif user.args[:1] == (value,) and _passes(maker, user, value):
                left.append(user)
            else:
                return []
    return readers


def _aligned(maker: Layer, reader: Layer, value: Node) -> bool:
    """Channels stand where the reader looks for its inputs: in [batch, channels] for both kinds."""
    return bool(maker.spatial_dims) == bool(reader.spatial_dims) or len(_shape(value)) == 2


def _passes(maker: Layer, user: Node, value: Node) -> bool:
    shape = _shape(value)
    if user.target in _FLATTENING:  # [batch, channels, 1, 1]
        return (
            bool(maker.spatial_dims) and len(_shape(user)) == 2 and all(n == 1 for n in shape[2:])
        )
    if user.target is aten.mean.dim:
        dims = {d % len(shape) for d in user.args[1]}  # type: ignore[union-attr, operator]
        return bool(maker.spatial_dims) and dims == {*range(2, len(shape))}
    if user.target in _POOLS:  # of a linear layer's features, or of [channels, length], none
        return maker.spatial_dims == _POOLS[user.target]
    return user.target in _HOMOGENEOUS


def _shape(node: Node) -> Sequence[int | torch.SymInt]:
    value = node.meta.get("val")
    return value.shape if isinstance(value, Tensor) else ()


def made_by_weights(module: GraphModule, joint: Joint) -> Tensor:
    """[channels]: the range of the weights that make each channel."""
    return tensor_at(module, joint.maker.weight).detach().abs().flatten(1).amax(1)


def balancing(module: GraphModule, joint: Joint, ranges: Tensor) -> Tensor:
    """[channels]: sqrt(`ranges` / ranges of the weights that read it): it makes them equal."""
    read = torch.stack([_by_input(module, r).abs().amax((1, 3)).flatten() for r in joint.readers])
    ratio = ranges / read.amax(0)
    usable = ratio.isfinite() & (ratio > 0)  # a channel of zeros has no range
    return torch.where(usable, ratio, 1.0).sqrt()


def _by_input(module: GraphModule, layer: Layer) -> Tensor:
    """A view [groups, out / groups, in / groups, kernel positions] of the layer's weight."""
    weight = tensor_at(module, layer.weight).detach()
    return weight.view(layer.groups, len(weight) // layer.groups, weight.shape[1], -1)


def rescale(module: GraphModule, joint: Joint, factors: Tensor) -> None:
    """In place: divide what the joint's maker gives by `factors` [channels], multiply it back
    where it is read."""
    weight = tensor_at(module, joint.maker.weight).detach()
    by_output = factors.to(weight.device)
    weight.div_(by_output.view(-1, *[1] * (weight.dim() - 1)))
    if joint.maker.bias is not None:
        tensor_at(module, joint.maker.bias).detach().div_(by_output)
    for reader in joint.readers:
        _by_input(module, reader).mul_(by_output.view(reader.groups, 1, -1, 1))


def equalize(module: GraphModule, node: Node, factors: Tensor) -> None:
    """`rescale` what layer `node` makes. Raises EditError where that changes the outputs."""
    layers = {layer.node: layer for layer in layers_of(module)}
    joint = _joint(module, layers[node], layers) if node in layers else None
    if joint is None or len(tensor_at(module, joint.maker.weight)) != len(factors):
        raise EditError(f"`{node.name}` hands on no {len(factors)} channels that can be scaled.")
    rescale(module, joint, factors)
