"""The neighbors that go into the kernel of a packed layer: a residual, an activation, or both."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.fx import Node

from ..capture import tensor_at
from .fusing import Activation, Residual, activation_of, residual_of
from .kernels import Post, convolves, groups_like, multiplies, post_of
from .packing import conv_arguments


@dataclass(frozen=True)
class Fused:
    """Those of one layer; nothing where the kernel takes none."""

    residual: Residual | None = None
    act: Activation | None = None

    def tail(self, node: Node) -> Node:
        """The last of the nodes that the kernel stands for."""
        if self.act is not None:
            return self.act.node
        return self.residual.add if self.residual is not None else node

    @property
    def post(self) -> Post:
        return post_of(self.act)


def _weight(node: Node) -> Tensor:
    weight, module = node.args[1], node.graph.owning_module
    assert isinstance(weight, Node) and module is not None
    return tensor_at(module, str(weight.target))


def takes_both(node: Node) -> bool:
    """The kernel of a convolution takes a residual and an activation; linear layers take one."""
    fused = fused_into_convolution(node)
    return fused.residual is not None and fused.act is not None


def fused_into_convolution(node: Node) -> Fused:
    """The most of what follows that the kernel takes: which it does differs from one to another."""
    weight, residual = _weight(node), residual_of(node)
    dtype, groups = weight.dtype, groups_like(conv_arguments(node)[-1], len(weight))
    # Sums after grouped convolutions are not oneDNN's; torch's own in half precision know no more
    # than the sum, and not in every shape.
    sums = groups == 1 or dtype == torch.float32
    if residual is not None and sums and convolves(dtype, groups, summed=True):
        act = activation_of(residual.add)
        fits = act is not None and convolves(dtype, groups, post_of(act), summed=True)
        return Fused(residual, act if fits else None)
    act = activation_of(node)
    return Fused(act=act if act is not None and convolves(dtype, groups, post_of(act)) else None)


def fused_into_linear(node: Node, sums: bool = True) -> Fused:
    """A residual (if `sums`) or an activation: these kernels take one of the two."""
    dtype, residual, act = _weight(node).dtype, residual_of(node), activation_of(node)
    if sums and residual is not None and multiplies(dtype, summed=True):
        return Fused(residual)
    return Fused(act=act if act is not None and multiplies(dtype, post_of(act)) else None)
