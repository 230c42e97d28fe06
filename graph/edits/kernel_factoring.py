"""One convolution as several smaller ones: along each axis of its kernel, or between few channels.

A convolution reads channels at places of its kernel. Split them into a part `p` that a first layer
encodes and the rest `t` that a second one sees the codes at, W[o, p, t] ~ sum_r K[o, r, t] P[r, p]:

    spatial  p = (channel, row), t = column: k x 1, then 1 x k (Jaderberg et al. 2014, section 2.2)
    tucker   p = channel, t = (row, column): 1 x 1, then k x k, whose outputs are few too and spread
             by 1 x 1 (Tucker-2, Kim et al. 2016, section 3.1)

No layer but the last has a bias, so zeros that pad the image are zeros for all of them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import GraphModule, Node

from ...core.errors import EditError
from ..capture import tensor_at
from ..layers import Layer, layers_of
from ..operators import aten
from .factoring import bias_of, factorable, hold, new_name

Allows = Callable[[Layer, tuple[int, ...]], bool]
_PLAIN = tuple(getattr(aten, f"conv{n}d").default for n in (1, 2, 3))


def spatial(layer: Layer, kernel: tuple[int, ...]) -> bool:
    """True for a convolution with rows and columns to split."""
    return layer.node.target in _PLAIN and len(kernel) == 2 and min(kernel) > 1


def tucker(layer: Layer, kernel: tuple[int, ...]) -> bool:
    """True if 1x1 convolutions around it can save anything."""
    return layer.node.target in _PLAIN and prod(kernel) > 1


def by_rows(weight: Tensor) -> Tensor:
    """[out, in x rows, columns] of [out, in, rows, columns]."""
    return weight.flatten(1, 2)


def by_channels(weight: Tensor) -> Tensor:
    """[out, in, kernel positions] of [out, in, *kernel]."""
    return weight.flatten(2)


def encoder(weight: Tensor, metric: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """P [full rank, p] and K [out, full rank, t] of `weight` [out, p, t], the leading codes first.

    `metric` [p, p] is the covariance of what is read, the same at each t; None: all counts alike.
    """
    out, parts, kernel_positions = weight.shape
    wide = weight.double().transpose(1, 2).reshape(-1, parts)
    read = wide if metric is None else wide @ metric.double()
    if len(wide) <= parts:
        basis = torch.linalg.eigh(read @ wide.T)[1].flip(1)
    else:  # the same space from the smaller side: by the root of the metric, which may be singular
        root = torch.eye(parts, dtype=wide.dtype, device=wide.device)
        if metric is not None:
            values, vectors = torch.linalg.eigh(metric.double())
            root = vectors * values.clamp_min(0).sqrt()
        basis = torch.linalg.svd(wide @ root, full_matrices=False)[0]
    return basis.T @ wide, basis.reshape(out, kernel_positions, -1).transpose(1, 2)


@dataclass(frozen=True)
class Link:
    """One convolution of the chain; None stands for steps, padding and dilation of 1, 0 and 1."""

    weight: Tensor
    sizes: tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]] | None = None


def spatial_weights(first: Tensor, second: Tensor, rows: int) -> tuple[Tensor, Tensor]:
    """[rank, in, rows, 1] and [out, rank, 1, columns] of P and K."""
    return first.reshape(len(first), -1, rows, 1), second.unsqueeze(2)


def tucker_weights(
    first: Tensor, core: Tensor, last: Tensor, kernel: tuple[int, ...]
) -> tuple[Tensor, Tensor, Tensor]:
    """[ranks[0], in, 1...], [ranks[1], ranks[0], *kernel] and [out, ranks[1], 1...]."""
    ones = (1,) * len(kernel)
    return (
        first.reshape(*first.shape, *ones),
        core.reshape(*core.shape[:2], *kernel),
        last.reshape(*last.shape, *ones),
    )


def factor_spatial(module: GraphModule, node: Node, rank: int) -> None:
    """Split convolution `node` in place along the axes of its kernel, by its weight alone."""
    layer, weight = _checked(module, node, spatial)
    out, ins, height, width = weight.shape
    _check_ranks(layer, (rank,), (min(ins * height, out * width),))
    codes, decoder = encoder(by_rows(weight))
    parts = spatial_weights(codes[:rank], decoder[:, :rank], height)
    (sy, sx), ((py, _), (px, _)), (dy, dx) = layer.stride, layer.padding, layer.dilation
    _chain(module, layer, [
        Link(parts[0], ((sy, 1), (py, 0), (dy, 1))), Link(parts[1], ((1, sx), (0, px), (1, dx)))
    ])  # fmt: skip


def factor_tucker(module: GraphModule, node: Node, ranks: tuple[int, ...]) -> None:
    """Put 1x1 convolutions around `node` in place, by its weight alone; `ranks`: in and out."""
    layer, weight = _checked(module, node, tucker)
    _check_ranks(layer, ranks, (weight.shape[1], len(weight)))
    codes, decoder = encoder(by_channels(weight))
    decoder = decoder[:, : ranks[0]]
    last = torch.linalg.svd(decoder.flatten(1), full_matrices=False)[0][:, : ranks[1]]
    core = torch.einsum("os,ort->srt", last, decoder)
    kernel = tuple(weight.shape[2:])
    parts = tucker_weights(codes[: ranks[0]], core, last, kernel)
    own = layer.stride, tuple(p for p, _ in layer.padding), layer.dilation
    _chain(module, layer, [Link(parts[0]), Link(parts[1], own), Link(parts[2])])


def names(module: GraphModule, weight: str, count: int) -> tuple[str, ...]:
    """Of the weights of a chain of `count` layers in place of the layer that held `weight`."""
    stems = ("core", "expand")[-(count - 1) :]
    return (weight, *(new_name(module, weight, stem) for stem in stems))


def _checked(module: GraphModule, node: Node, allows: Allows) -> tuple[Layer, Tensor]:
    layer = next((one for one in layers_of(module) if one.node is node), None)
    reason = "it is not a layer" if layer is None else factorable(layer)
    if layer is None or reason:
        raise EditError(f"`{node.name}` can't be split: {reason}.")
    weight = tensor_at(module, layer.weight).detach()
    if not allows(layer, tuple(weight.shape[2:])):
        raise EditError(f"`{node.name}` has no kernel that can be split so.")
    return layer, weight


def _check_ranks(layer: Layer, ranks: tuple[int, ...], most: tuple[int, ...]) -> None:
    if len(ranks) != len(most) or any(not 0 < r <= n for r, n in zip(ranks, most, strict=True)):
        raise EditError(f"`{layer.weight}` has ranks {list(most)}, so it can't have {list(ranks)}.")


def _chain(module: GraphModule, layer: Layer, links: list[Link]) -> None:
    """The first link keeps the node and its names, the last one gets the bias."""
    node, graph = layer.node, module.graph
    whole = tensor_at(module, layer.weight)
    called = names(module, layer.weight, len(links))
    bias = bias_of(module, layer, called[-1], len(whole))
    holder, _, leaf = layer.weight.rpartition(".")
    ready = [link.weight.to(whole.dtype).contiguous() for link in links]
    setattr(module.get_submodule(holder), leaf, nn.Parameter(ready[0], requires_grad=False))
    last, weight = node, node.args[1]
    users = list(node.users)
    node.args, node.kwargs = (node.args[0], weight, None, *_sizes(layer, links[0])), {}
    read = _note(node, layer.source.meta.get("val"), ready[0])
    for name, value, link in zip(called[1:], ready[1:], links[1:], strict=True):
        hold(module, name, value)
        with graph.inserting_after(last):
            added = graph.call_function(node.target, ())  # type: ignore[arg-type]
        with graph.inserting_before(added):
            added.args = (last, graph.get_attr(name), None, *_sizes(layer, link))
        last, read = added, _note(added, read, value)
    with graph.inserting_before(last):
        last.args = (*last.args[:2], graph.get_attr(bias), *last.args[3:])
    for user in users:
        user.replace_input_with(node, last)


def _note(node: Node, read: object, weight: Tensor) -> Tensor | None:
    """Later passes look at what a node gives; `read` is what the one before it gives."""
    if not isinstance(read, Tensor):
        return None
    arguments: Any = node.args
    sizes = [
        (n + 2 * pad - hole * (k - 1) - 1) // step + 1
        for n, k, step, pad, hole in zip(
            read.shape[2:], weight.shape[2:], *arguments[3:6], strict=True
        )
    ]
    value = read.new_empty([read.shape[0], len(weight), *sizes])
    node.meta["val"] = value
    return value


def _sizes(layer: Layer, link: Link) -> tuple[list[int], ...]:
    ones, none = [1] * layer.spatial_dims, [0] * layer.spatial_dims
    return (ones, none, ones) if link.sizes is None else tuple(list(s) for s in link.sizes)
