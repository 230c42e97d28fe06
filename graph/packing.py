"""What the lowerings share: prepacked weights, a layer's arguments, nodes in place of others."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Node

from .capture import tensor_at

HEIGHT = -2
_TO_ROWS, _TO_IMAGE = [0, 2, 3, 1], [0, 3, 1, 2]
LAYER = "layer"  # in `meta` of a kernel's node: the layer that it is


class Packs:
    """Prepacked weights as buffers of the module, one per layer."""

    def __init__(self, module: GraphModule) -> None:
        self.module = module
        self.count = sum(name.startswith("_packed_") for name in module._buffers)

    def add(self, tensor: Tensor, before: Node) -> Node:
        name = f"_packed_{self.count}"
        self.count += 1
        # Not persistent: a packed weight is this machine's, the plain one is what is saved.
        self.module.register_buffer(name, tensor, persistent=False)
        with self.module.graph.inserting_before(before):
            return self.module.graph.get_attr(name)


def conv_arguments(node: Node) -> tuple[Any, ...]:
    """(input, weight, bias, stride, padding, dilation, groups) as of a conv2d, sizes as pairs."""
    given = dict(zip(("input", "weight", "bias", "stride", "padding", "dilation", "groups"),
                     node.args, strict=False)) | dict(node.kwargs)  # fmt: skip

    def pair(name: str, default: int) -> list[int]:
        value: Any = given.get(name, default)
        items = [value] if isinstance(value, int) else list(value)
        if node.target is torch.ops.aten.conv1d.default:
            return [default, *items]
        return items * 2 if len(items) == 1 else items

    return (given["input"], given["weight"], given.get("bias"), pair("stride", 1),
            pair("padding", 0), pair("dilation", 1), given.get("groups", 1))  # fmt: skip


def as_image(module: GraphModule, signal: Node, before: Node) -> Node:
    """[N, C, L] as [N, C, 1, L]; what `back_to_signal` made is undone."""
    if signal.target is torch.ops.aten.squeeze.dim and signal.args[1] == HEIGHT:
        image = signal.args[0]
        assert isinstance(image, Node)
        return image
    with module.graph.inserting_before(before):
        return module.graph.call_function(torch.ops.aten.unsqueeze.default, (signal, HEIGHT))


def back_to_signal(module: GraphModule, image: Node) -> None:
    with module.graph.inserting_after(image):
        signal = module.graph.call_function(torch.ops.aten.squeeze.dim, (image, HEIGHT))
    signal.meta = dict(image.meta)
    image.meta = {LAYER: signal.meta.pop(LAYER, "")}
    image.replace_all_uses_with(signal, delete_user_cb=lambda user: user is not signal)


def is_pointwise(node: Node) -> bool:
    """A conv2d that looks at one place at a time, all of them in turn."""
    _, weight, _, stride, padding, _, groups = conv_arguments(node)
    module = node.graph.owning_module
    if node.target is not torch.ops.aten.conv2d.default or module is None:
        return False
    one_each = (tuple(stride), tuple(padding), groups) == ((1, 1), (0, 0), 1)
    return one_each and tensor_at(module, str(weight.target)).shape[2:] == (1, 1)


def places_of(node: Node, batch: int) -> int:
    """How many places an image layer's output has, the batch included."""
    value = node.meta.get("val")
    sizes = value.shape[2:] if isinstance(value, Tensor) else ()
    return math.prod((batch, *(size for size in sizes if isinstance(size, int))))


def as_rows(module: GraphModule, image: Node, before: Node) -> Node:
    """[N, C, H, W] as [N, H, W, C], a view where it lies as NHWC; `back_to_image` is undone."""
    if image.target is torch.ops.aten.permute.default and image.args[1] == _TO_IMAGE:
        rows = image.args[0]
        assert isinstance(rows, Node)
        return rows
    with module.graph.inserting_before(before):
        return module.graph.call_function(torch.ops.aten.permute.default, (image, _TO_ROWS))


def back_to_image(module: GraphModule, rows: Node) -> None:
    with module.graph.inserting_after(rows):
        image = module.graph.call_function(torch.ops.aten.permute.default, (rows, _TO_IMAGE))
    image.meta = {k: v for k, v in rows.meta.items() if k != LAYER}
    rows.meta = {LAYER: rows.meta.get(LAYER, "")}
    rows.replace_all_uses_with(image, delete_user_cb=lambda user: user is not image)


def call(module: GraphModule, before: Node, target: Any, arguments: tuple[Any, ...]) -> Node:
    """A new call ahead of `before`, with its example value."""
    with module.graph.inserting_before(before):
        made = module.graph.call_function(target, arguments)
    if "val" in before.meta:
        made.meta["val"] = before.meta["val"]
    return made


def replace(module: GraphModule, tail: Node, target: Any, arguments: tuple[Any, ...]) -> Node:
    made = call(module, tail, target, arguments)
    tail.replace_all_uses_with(made)
    return made


def tidy(module: GraphModule) -> GraphModule:
    module.graph.eliminate_dead_code(is_impure_node=lambda n: n.op in ("placeholder", "output"))
    module.delete_all_unused_submodules()
    module.recompile()
    return module
