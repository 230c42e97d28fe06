"""Rules for layers with a weight: conv2d, linear, batch norm."""

from __future__ import annotations

import numpy as np
from torch.fx import Node

from ..labels import Dims, Labels
from ..walk import Walk
from .arguments import argument, integer
from .shape import whole_space


def convolution(walk: Walk, node: Node) -> Dims:
    """conv(input, weight, bias, stride, padding, dilation, groups) over (B, C, *space)."""
    data = walk.of(node.args[0])
    weight, bias = walk.of(node.args[1]), walk.of(argument(node, 2, "bias"))
    if len(data) != len(weight) or len(weight) < 3:
        return _whole(walk, node, "an unbatched convolution")
    out = weight[0]
    if bias:
        walk.labels.join(out, bias[0], "its bias is not a parameter")
    groups = argument(node, 6, "groups", 1)
    if groups == 1:
        walk.labels.join(weight[1], data[1], "it reads the model's input")
    elif isinstance(groups, int):
        _grouped(walk, node, data[1], weight, groups)
    else:  # a weight of its own for every row of the batch (CondConv)
        walk.freeze((data[1], weight[1]), f"node `{node.name}` has a group for every row")
    return (data[0], out, *whole_space(walk, node, data[2:]))


def _grouped(walk: Walk, node: Node, channels: Labels | None, weight: Dims, groups: int) -> None:
    out, within = weight[0], weight[1]
    if channels is None or out is None or within is None:
        walk.freeze((channels, out, within), "a grouped convolution of the model's input")
        return
    if groups >= len(within):
        _drop_whole_groups(walk, node, channels, out, within, groups)
    else:
        _drop_positions(walk, channels, out, within, groups)


def _drop_whole_groups(
    walk: Walk, node: Node, channels: Labels, out: Labels, within: Labels, groups: int
) -> None:
    """Many small groups (depthwise, ResNeXt): a unit is one group's inputs and outputs."""
    walk.labels.freeze(within, "a grouped convolution drops whole groups")
    for inputs, outputs in zip(channels.reshape(groups, -1), out.reshape(groups, -1), strict=True):
        walk.labels.tie_all(inputs)
        walk.labels.tie_all(outputs)
        walk.labels.tie(int(inputs[0]), int(outputs[0]))
    index = 6 if len(node.args) > 6 else None
    if index is None:
        walk.freeze((channels, out), "its group count is a keyword of the convolution")
        return
    walk.patch(node, (6,), channels, divide=len(channels) // groups)


def _drop_positions(walk: Walk, channels: Labels, out: Labels, within: Labels, groups: int) -> None:
    """Few large groups: a unit is the same position in every group, so groups stay equal."""
    for row in channels.reshape(groups, -1):
        walk.labels.join(within, row, "")
    first, *others = out.reshape(groups, -1)
    for row in others:
        walk.labels.join(first, row, "")


def transposed(walk: Walk, node: Node) -> Dims:
    """conv_transpose(input, weight, bias, stride, padding, output_padding, groups)."""
    data, weight = walk.of(node.args[0]), walk.of(node.args[1])
    bias = walk.of(argument(node, 2, "bias"))
    if len(data) != len(weight):
        return _whole(walk, node, "an unbatched transposed convolution")
    walk.labels.join(weight[0], data[1], "it reads the model's input")
    out, groups = weight[1], argument(node, 6, "groups", 1)
    if groups != 1:
        out = _grouped_transposed(walk, node, weight, integer(groups))
    if bias:
        walk.labels.join(out, bias[0], "its bias is not a parameter")
    return (data[0], out, *whole_space(walk, node, data[2:]))


def _grouped_transposed(walk: Walk, node: Node, weight: Dims, groups: int) -> Labels | None:
    """The weight is (inputs, outputs of one group), so outputs get new labels in every group."""
    channels, within = weight[0], weight[1]
    if channels is None or within is None:
        walk.freeze((channels, within), "a grouped convolution of the model's input")
        return None
    if groups < len(within):
        for row in channels.reshape(groups, -1)[1:]:
            walk.labels.join(channels.reshape(groups, -1)[0], row, "")
        return np.tile(within, groups)
    out = walk.labels.new(groups * len(within))
    _drop_whole_groups(walk, node, channels, out, within, groups)
    return out


def linear(walk: Walk, node: Node) -> Dims:
    """linear(input, weight, bias): the last dimension is contracted with weight axis 1."""
    data, weight = walk.of(node.args[0]), walk.of(node.args[1])
    bias = walk.of(argument(node, 2, "bias"))
    if not data or len(weight) != 2:
        return _whole(walk, node, "a linear layer whose weight is computed")
    if bias:
        walk.labels.join(weight[0], bias[0], "its bias is not a parameter")
    walk.labels.join(weight[1], data[-1], "it reads the model's input")
    return (*data[:-1], weight[0])


def batch_norm(walk: Walk, node: Node) -> Dims:
    """batch_norm(input, weight, bias, mean, var, ...): every vector follows the channels."""
    data = walk.of(node.args[0])
    for vector in node.args[1:5]:
        dims = walk.of(vector)
        if dims:
            walk.labels.join(dims[0], data[1], "it normalizes the model's input")
    if node.args[5]:  # with statistics of its own: a weight that is standardized
        walk.freeze((data[0], *data[2:]), f"node `{node.name}` normalizes over it")
    return data


def prelu(walk: Walk, node: Node) -> Dims:
    """prelu(x, weight): one slope for all, or one for each channel."""
    dims, slopes = walk.of(node.args[0]), walk.of(node.args[1])
    if slopes and slopes[0] is not None and len(slopes[0]) > 1:
        walk.labels.join(dims[1], slopes[0], "it has slopes for a dimension that stays whole")
    return dims


def _whole(walk: Walk, node: Node, what: str) -> Dims:
    for used in node.all_input_nodes:
        walk.freeze(walk.of(used), f"it belongs to {what} (node `{node.name}`)")
    return tuple(None for _ in walk.shape(node))
