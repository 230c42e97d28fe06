"""What the lowerings share: prepacked weights, a layer's arguments, nodes in place of others."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.fx import GraphModule, Node


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
    """(input, weight, bias, stride, padding, dilation, groups) of a conv2d, sizes as pairs."""
    given = dict(zip(("input", "weight", "bias", "stride", "padding", "dilation", "groups"),
                     node.args, strict=False)) | dict(node.kwargs)  # fmt: skip

    def pair(name: str, default: int) -> Any:
        value: Any = given.get(name, default)
        if isinstance(value, str):
            return value
        items = [value] if isinstance(value, int) else list(value)
        return items * 2 if len(items) == 1 else items

    return (given["input"], given["weight"], given.get("bias"), pair("stride", 1),
            pair("padding", 0), pair("dilation", 1), given.get("groups", 1))  # fmt: skip


def call(module: GraphModule, before: Node, target: Any, arguments: tuple[Any, ...]) -> Node:
    """A new call ahead of `before`, with its example value."""
    with module.graph.inserting_before(before):
        made = module.graph.call_function(target, arguments)
    if "val" in before.meta:
        made.meta["val"] = before.meta["val"]
    return made


def replace(module: GraphModule, tail: Node, target: Any, arguments: tuple[Any, ...]) -> None:
    tail.replace_all_uses_with(call(module, tail, target, arguments))


def tidy(module: GraphModule) -> GraphModule:
    module.graph.eliminate_dead_code(is_impure_node=lambda n: n.op in ("placeholder", "output"))
    module.delete_all_unused_submodules()
    module.recompile()
    return module
