"""Convolutions and linear layers on weights prepacked for oneDNN, what follows fused into them.

Weights are packed for the size that the layer reads: without it oneDNN lays them out for an
algorithm that may be 14 times slower (AVX2, 3x3, 256 channels at 14x14: 27.7 ms instead of 2.0).
A packed convolution takes 30 us before it begins, torch's own 9 (torch 2.13), so small layers are
often faster as they are: `PackingTest` decides, layer by layer.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Node

from ...core.model_io import Inputs
from ..capture import tensor_at
from ..mutation import is_written
from ..operators import Arguments, Operator, aten, mkldnn
from ..shown_sizes import ShownSizes
from .fused import Fused, fused_into_convolution, fused_into_linear, takes_both
from .int8 import lower_int8, shape_read
from .kernels import convolves, groups_like, multiplies
from .packing import (
    LAYER,
    Packs,
    as_image,
    as_rows,
    back_to_image,
    back_to_signal,
    conv_arguments,
    is_pointwise,
    positions_of,
    replace,
    tidy,
)
from .weight_only import float_weights, lower_weights

CONVOLUTIONS = (aten.conv1d.default, aten.conv2d.default)
Run = Callable[[], object]
# (what the layer's time depends on, the packed kernel, the layer as it is) -> pack it?
PackingTest = Callable[[Hashable, Run, Run], bool]


def always(_: Hashable, packed: Run, plain: Run) -> bool:
    """Every layer that has a packed kernel gets it."""
    return True


def prepacked(
    module: GraphModule, inputs: Inputs, *, nhwc: bool, test: PackingTest = always
) -> GraphModule:
    """Replace convolutions and linear layers by prepacked oneDNN ones with fused neighbors.

    `nhwc`: images run channels-last. `test` says which layers are worth it.
    """
    sizes = ShownSizes.of(module, inputs)
    lower_int8(module, sizes)
    lower_weights(module, sizes)
    float_weights(module)
    packing = Packing(module, Packs(module), sizes, nhwc, test)
    for node in list(module.graph.nodes):
        if node.target in CONVOLUTIONS and _fits(node):
            if nhwc and is_pointwise(node) and not takes_both(node):
                packing.pointwise(node)
            else:
                packing.convolution(node)
        elif node.target is aten.linear.default and _fits(node):
            packing.linear(node)
    return tidy(module)


@dataclass(frozen=True)
class Packing:
    """One walk over a graph. `sizes`: those that kernels are laid out for."""

    module: GraphModule
    packs: Packs
    sizes: ShownSizes
    nhwc: bool
    test: PackingTest

    def convolution(self, node: Node) -> None:
        data, weight, bias, *sizes = conv_arguments(node)
        stride, padding, dilation, groups = sizes
        order = (padding, stride, dilation, groups)
        signal = node.target is aten.conv1d.default  # runs as an image of height 1
        kernel, shape = self._tensor(weight), self._shape(node)
        if signal:
            kernel = kernel.unsqueeze(2)
            shape = None if shape is None else [*shape[:2], 1, *shape[2:]]
        with torch.no_grad():
            packed = mkldnn._reorder_convolution_weight(
                kernel, *order, *([] if shape is None else [shape])
            )
        fused = fused_into_convolution(node)
        target, rest = _convolution(order, fused)

        def arguments(x: Any, other: Any, packed: Any, bias: Any) -> Arguments:
            return (x, *([] if other is None else [other]), packed, bias, *rest)

        if not self._pays(node, fused, shape, target, arguments, packed):
            return
        tail = fused.tail(node)

        def image(value: Node) -> Node:
            return as_image(self.module, value, tail) if signal else value

        other = image(fused.residual.other) if fused.residual is not None else None
        added = self.packs.add(packed, tail)
        call = replace(self.module, tail, target, arguments(image(data), other, added, bias))
        call.meta[LAYER] = node.name
        if signal:
            back_to_signal(self.module, call)

    def pointwise(self, node: Node) -> None:
        """A 1x1 convolution on an NHWC image is a linear layer on its places, whose kernels are
        faster (on an AMX machine in bfloat16, 160 channels to 960 at 7x7: 170 times)."""
        fused = fused_into_linear(node)
        data, weight, bias = conv_arguments(node)[:3]
        kernel = self._tensor(weight).flatten(1).contiguous()
        with torch.no_grad():
            packed = mkldnn._reorder_linear_weight(kernel, positions_of(node, self.sizes))
        target, arguments = _linear(fused)
        if not self._pays(node, fused, self._shape(node), target, _on_rows(arguments), packed):
            return
        tail = fused.tail(node)
        rows = as_rows(self.module, data, tail)
        other = None
        if fused.residual is not None:
            other = as_rows(self.module, fused.residual.other, tail)
        call = replace(
            self.module, tail, target, arguments(rows, other, self.packs.add(packed, tail), bias)
        )
        call.meta[LAYER] = node.name
        back_to_image(self.module, call)

    def linear(self, node: Node) -> None:
        fused = fused_into_linear(node, sums=False)
        with torch.no_grad():
            packed = mkldnn._reorder_linear_weight(self._tensor(node.args[1]), self.sizes.batch)
        target, arguments = _linear(fused)
        if not self._pays(node, fused, self._shape(node), target, arguments, packed):
            return
        tail, bias = fused.tail(node), node.args[2] if len(node.args) > 2 else None
        added = self.packs.add(packed, tail)
        call = replace(self.module, tail, target, arguments(node.args[0], None, added, bias))
        call.meta[LAYER] = node.name

    def _pays(
        self,
        node: Node,
        fused: Fused,
        shape: list[int] | None,
        target: Operator,
        arguments: Callable[..., Arguments],
        packed: Tensor,
    ) -> bool:
        """Ask `test`, with calls on numbers of the layer's own sizes."""
        source, inner = node.args[0], node.all_input_nodes[1:]
        if shape is None or not isinstance(source, Node) or any(n.op != "get_attr" for n in inner):
            return True
        weight = self._tensor(node.args[1])
        laid = self.nhwc and node.target is aten.conv2d.default
        layout = torch.channels_last if laid else torch.contiguous_format
        x = torch.full(shape, 0.5, dtype=weight.dtype).to(memory_format=layout)
        given = {n: self._tensor(n) for n in inner}
        bias = next((t for n, t in given.items() if n is not node.args[1]), None)
        signal = node.target is aten.conv1d.default
        sizes = conv_arguments(node)[3:] if node.target in CONVOLUTIONS else ()
        plain, other = _plain_run(node, fused, given | {source: x.squeeze(2) if signal else x})
        beside = other.unsqueeze(2) if signal and other is not None else other
        real = arguments(x, beside, packed, bias)
        key = (
            str(node.target), tuple(shape), tuple(weight.shape), weight.dtype, self.nhwc,
            str(sizes), fused.post, other is not None, bias is not None,
        )  # fmt: skip
        return self.test(key, lambda: target(*real), plain)

    def _tensor(self, node: Any) -> Tensor:
        return tensor_at(self.module, str(node.target)).detach()

    def _shape(self, node: Node) -> list[int] | None:
        """Of the input; None where the graph does not say."""
        read, weight = node.args[0], self._tensor(node.args[1])
        if not isinstance(read, Node):
            return None
        if node.target is aten.linear.default:
            return shape_read(read, self.sizes, -1, weight.shape[1])
        return shape_read(read, self.sizes, 1, weight.shape[1] * conv_arguments(node)[-1])


def _plain_run(node: Node, fused: Fused, given: dict[Node, Tensor]) -> tuple[Run, Tensor | None]:
    """The layer and what would be fused into it as they are, and the residual's numbers."""
    args, kwargs = torch.fx.node.map_arg((node.args, dict(node.kwargs)), given.__getitem__)

    def layer() -> Any:
        return node.target(*args, **kwargs)  # type: ignore[operator]

    other = None
    if fused.residual is not None:
        with torch.inference_mode():
            other = torch.full_like(layer(), 0.5)

    def plain() -> object:
        value = layer() if other is None else aten.add.Tensor(layer(), other)
        act = fused.act
        if act is None:
            return value
        return act.node.target(value, *act.node.args[1:], **act.node.kwargs)  # type: ignore[operator]

    return plain, other


def _convolution(order: Arguments, fused: Fused) -> tuple[Operator, Arguments]:
    """The kernel, and its arguments after the bias."""
    act = fused.act
    if fused.residual is None:
        name, scalars, algorithm = fused.post
        return mkldnn._convolution_pointwise.default, (*order, name, list(scalars), algorithm)
    rest: Arguments = (
        *order, "add", 1.0, act.name if act else None, list(act.scalars) if act else [],
        act.algorithm if act else None,
    )  # fmt: skip
    return mkldnn._convolution_pointwise.binary, rest


def _linear(fused: Fused) -> tuple[Operator, Callable[..., Arguments]]:
    """The kernel, and its arguments for rows, residual, weight and bias."""
    if fused.residual is not None:
        return mkldnn._linear_pointwise.binary, lambda x, other, packed, bias: (
            x, other, packed, bias, "add",
        )  # fmt: skip
    name, scalars, algorithm = fused.post
    return mkldnn._linear_pointwise.default, lambda x, other, packed, bias: (
        x, packed, bias, name, list(scalars), algorithm,
    )  # fmt: skip


def _on_rows(arguments: Callable[..., Arguments]) -> Callable[..., Arguments]:
    """The same for images [N, C, H, W]."""

    def rows(image: Tensor | None) -> Tensor | None:
        return None if image is None else image.permute(0, 2, 3, 1)

    return lambda x, other, packed, bias: arguments(rows(x), rows(other), packed, bias)


def _fits(node: Node) -> bool:
    """A layer with a float weight of the graph's own and written padding, on a batch."""
    weight, module = node.args[1], node.graph.owning_module
    if not isinstance(weight, Node) or weight.op != "get_attr" or module is None:
        return False
    if is_written(weight):
        return False
    tensor, value = tensor_at(module, str(weight.target)), node.meta.get("val")
    if tensor.dim() > 2 and isinstance(value, Tensor) and value.dim() != tensor.dim():
        return False
    if node.target is aten.linear.default:
        return multiplies(tensor.dtype)
    written = not isinstance(dict(enumerate(node.args)).get(4, [0]), str)
    return written and convolves(tensor.dtype, groups_like(conv_arguments(node)[-1], len(tensor)))
