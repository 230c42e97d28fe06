"""Parts that the lowerings share: prepacked weights, a layer's arguments, nodes in place of
others."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Node
from torch.fx.node import Argument

from ..capture import tensor_at
from ..mutation import is_last_write
from ..operators import Arguments, Operator
from ..shown_sizes import ShownSizes

HEIGHT = -2
View = tuple[Operator, Argument]  # an operator and its second argument
_UNSQUEEZED: View = (torch.ops.aten.unsqueeze.default, HEIGHT)
_SQUEEZED: View = (torch.ops.aten.squeeze.dim, HEIGHT)
_TO_ROWS: View = (torch.ops.aten.permute.default, [0, 2, 3, 1])
_TO_IMAGE: View = (torch.ops.aten.permute.default, [0, 3, 1, 2])
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
    return _into(module, signal, before, _UNSQUEEZED, _SQUEEZED)


def back_to_signal(module: GraphModule, image: Node) -> None:
    _back(module, image, _SQUEEZED)


def is_pointwise(node: Node) -> bool:
    """A conv2d that looks at one place at a time, all of them in turn."""
    _, weight, _, stride, padding, _, groups = conv_arguments(node)
    module = node.graph.owning_module
    if node.target is not torch.ops.aten.conv2d.default or module is None:
        return False
    one_each = (tuple(stride), tuple(padding), groups) == ((1, 1), (0, 0), 1)
    return one_each and tensor_at(module, str(weight.target)).shape[2:] == (1, 1)


def positions_of(node: Node, sizes: ShownSizes) -> int:
    """The number of positions in an image layer's output, the batch included."""
    shape = sizes.of_node(node) or []
    return math.prod((sizes.batch, *shape[2:]))


def as_rows(module: GraphModule, image: Node, before: Node) -> Node:
    """[N, C, H, W] as [N, H, W, C], a view where it lies as NHWC; `back_to_image` is undone."""
    return _into(module, image, before, _TO_ROWS, _TO_IMAGE)


def back_to_image(module: GraphModule, rows: Node) -> None:
    _back(module, rows, _TO_IMAGE)


def _into(module: GraphModule, value: Node, before: Node, view: View, back: View) -> Node:
    """`view` of a value; where the value is `back` of another one, that one."""
    if value.target is back[0] and value.args[1] == back[1]:
        source = value.args[0]
        assert isinstance(source, Node)
        return source
    with module.graph.inserting_before(before):
        return module.graph.call_function(view[0], (value, view[1]))


def _back(module: GraphModule, inner: Node, back: View) -> None:
    """`back` of `inner` for all that read it; the kernel keeps the name of its layer alone."""
    with module.graph.inserting_after(inner):
        outer = module.graph.call_function(back[0], (inner, back[1]))
    outer.meta = dict(inner.meta)
    inner.meta = {LAYER: outer.meta.pop(LAYER, "")}
    inner.replace_all_uses_with(outer, delete_user_cb=lambda user: user is not outer)


def insert_call(
    module: GraphModule,
    before: Node,
    target: Operator,
    arguments: Arguments,
) -> Node:
    """A new call ahead of `before`, with its example value."""
    with module.graph.inserting_before(before):
        call = module.graph.call_function(target, arguments)
    if "val" in before.meta:
        call.meta["val"] = before.meta["val"]
    return call


def replace(module: GraphModule, tail: Node, target: Operator, arguments: Arguments) -> Node:
    call = insert_call(module, tail, target, arguments)
    tail.replace_all_uses_with(call)
    return call


def tidy(module: GraphModule) -> GraphModule:
    """Without what nobody reads: checks, and what worked in place on values that are gone."""
    module.graph.eliminate_dead_code(
        is_impure_node=lambda n: n.op in ("placeholder", "output") or is_last_write(n)
    )
    module.delete_all_unused_submodules()
    module.recompile()
    return module
