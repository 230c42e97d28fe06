"""Lowering: a captured graph rewritten to this CPU's fast kernels. Done at load, never stored.

Batch norms are folded, dropout goes, weights of convolutions and linear layers are prepacked for
oneDNN, activations and residual adds are fused into them, images run channels-last.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Node

from ..core.calling import Inputs
from .capture import clone, tensor_at
from .folding import fold_batchnorm, foldable
from .fusing import Activation, activation_of, residual_of

aten: Any = torch.ops.aten
mkldnn: Any = getattr(torch.ops, "mkldnn", None)
HEIGHT = -2
_CONVOLUTIONS = (aten.conv1d.default, aten.conv2d.default)
_NOTHING = (aten.dropout.default, aten.dropout_.default, aten.feature_dropout.default,
            aten.feature_dropout_.default)  # fmt: skip


def variants(module: GraphModule, inputs: Inputs) -> dict[str, Callable[[], GraphModule]]:
    """Named lowerings worth timing here; which one is fastest differs from net to net."""
    found: dict[str, Callable[[], GraphModule]] = {"folded": lambda: folded_copy(module)}
    images = any(x.dim() == 4 for x in inputs)
    if images:
        found["channels_last"] = lambda: channels_last(folded_copy(module))
    if can_prepack(inputs):
        found["onednn"] = lambda: prepacked(folded_copy(module), inputs, nhwc=False)
        if images:
            found["onednn_channels_last"] = lambda: prepacked(
                channels_last(folded_copy(module)), inputs, nhwc=True
            )
    return found


def lower(module: GraphModule, inputs: Inputs) -> GraphModule:
    """The furthest lowering this device takes, as a new module. `module` is not changed."""
    return list(variants(module, inputs).values())[-1]()


def can_prepack(inputs: Inputs) -> bool:
    """oneDNN kernels want CPU float32 and a torch built with them."""
    floats = [x for x in inputs if x.is_floating_point()]
    return (
        torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
        and hasattr(mkldnn, "_convolution_pointwise")
        and all(x.device.type == "cpu" and x.dtype == torch.float32 for x in floats)
    )


def folded_copy(module: GraphModule) -> GraphModule:
    """A copy without dropout and foldable batch norms, for inference."""
    made = clone(module)
    for node in list(made.graph.nodes):
        if node.target in _NOTHING and not node.args[2]:
            node.replace_all_uses_with(node.args[0])
            made.graph.erase_node(node)
        elif foldable(node):
            fold_batchnorm(made, node)
    for parameter in made.parameters():
        parameter.requires_grad_(False)
    return _tidy(made)


def channels_last(module: GraphModule) -> GraphModule:
    """NHWC in place: 4-d inputs and convolution weights."""
    for node in list(module.graph.nodes):
        value = node.meta.get("val")
        if node.op == "placeholder" and isinstance(value, Tensor) and value.dim() == 4:
            with module.graph.inserting_after(node):
                laid = module.graph.call_function(
                    aten.contiguous.default, (node,), {"memory_format": torch.channels_last}
                )
            laid.meta["val"] = value
            node.replace_all_uses_with(laid, delete_user_cb=lambda u, laid=laid: u is not laid)
    for parameter in module.parameters():
        if parameter.dim() == 4:
            parameter.data = parameter.data.to(memory_format=torch.channels_last)
    return _tidy(module)


def prepacked(module: GraphModule, inputs: Inputs, *, nhwc: bool) -> GraphModule:
    """Replace convolutions and linear layers by prepacked oneDNN ones with fused neighbours."""
    del nhwc
    packs = Packs(module)
    for node in list(module.graph.nodes):
        if node.target in _CONVOLUTIONS and packs.fits(node):
            _lower_convolution(module, node, packs)
        elif node.target is aten.linear.default and packs.fits(node):
            _lower_linear(module, node, packs, rows=inputs[0].shape[0])
    return _tidy(module)


class Packs:
    """Prepacked weights as buffers of the module, one per layer."""

    def __init__(self, module: GraphModule) -> None:
        self.module = module
        self.count = 0

    def fits(self, node: Node) -> bool:
        weight = node.args[1]
        if not isinstance(weight, Node) or weight.op != "get_attr":
            return False
        held = tensor_at(self.module, str(weight.target))
        return held.dtype == torch.float32 and not isinstance(
            dict(enumerate(node.args)).get(3, [1]), str
        )

    def add(self, tensor: Tensor, before: Node) -> Node:
        name = f"_packed_{self.count}"
        self.count += 1
        # Not persistent: a packed weight is this machine's, the plain one is what is saved.
        self.module.register_buffer(name, tensor, persistent=False)
        with self.module.graph.inserting_before(before):
            return self.module.graph.get_attr(name)


def _lower_convolution(module: GraphModule, node: Node, packs: Packs) -> None:
    data, weight, bias, stride, padding, dilation, groups = _conv_arguments(node)
    flat = node.target is aten.conv1d.default  # runs as an image of height 1
    held = tensor_at(module, str(weight.target)).detach()
    with torch.no_grad():
        packed = mkldnn._reorder_convolution_weight(
            held.unsqueeze(2) if flat else held, padding, stride, dilation, groups
        )
    residual = residual_of(node)
    tail = residual.add if residual is not None else node
    act = activation_of(tail)
    tail = act.node if act is not None else tail
    sizes = (padding, stride, dilation, groups)

    def image(value: Node) -> Node:
        return _as_image(module, value, tail) if flat else value

    if residual is not None:
        target = mkldnn._convolution_pointwise.binary
        arguments: tuple[Any, ...] = (
            image(data), image(residual.other), packs.add(packed, tail), bias, *sizes,
            "add", 1.0, act.name if act else None, act.scalars if act else [],
            act.algorithm if act else None,
        )  # fmt: skip
    else:
        chosen = act or Activation(node, "none", [], "")
        target = mkldnn._convolution_pointwise.default
        arguments = (
            image(data), packs.add(packed, tail), bias, *sizes,
            chosen.name, chosen.scalars, chosen.algorithm,
        )  # fmt: skip
    made = _replace(module, tail, target, arguments)
    if flat:
        _back_to_signal(module, made)


def _as_image(module: GraphModule, value: Node, before: Node) -> Node:
    """[N, C, L] as [N, C, 1, L]; what `_back_to_signal` made is undone."""
    if value.target is aten.squeeze.dim and value.args[1] == HEIGHT:
        image = value.args[0]
        assert isinstance(image, Node)
        return image
    with module.graph.inserting_before(before):
        return module.graph.call_function(aten.unsqueeze.default, (value, HEIGHT))


def _back_to_signal(module: GraphModule, image: Node) -> None:
    with module.graph.inserting_after(image):
        signal = module.graph.call_function(aten.squeeze.dim, (image, HEIGHT))
    signal.meta = dict(image.meta)
    image.meta = {}
    image.replace_all_uses_with(signal, delete_user_cb=lambda user: user is not signal)


def _lower_linear(module: GraphModule, node: Node, packs: Packs, rows: int) -> None:
    act = activation_of(node)
    tail = act.node if act else node
    chosen = act or Activation(node, "none", [], "")
    weight = node.args[1]
    assert isinstance(weight, Node)
    with torch.no_grad():
        packed = mkldnn._reorder_linear_weight(tensor_at(module, str(weight.target)).detach(), rows)
    bias = node.args[2] if len(node.args) > 2 else None
    arguments = (node.args[0], packs.add(packed, tail), bias, chosen.name, chosen.scalars,
                 chosen.algorithm)  # fmt: skip
    _replace(module, tail, mkldnn._linear_pointwise.default, arguments)


def _conv_arguments(node: Node) -> tuple[Any, ...]:
    """As of a 2-d convolution; a 1-d one has height 1."""
    given = dict(zip(("input", "weight", "bias", "stride", "padding", "dilation", "groups"),
                     node.args, strict=False)) | dict(node.kwargs)  # fmt: skip

    def pair(name: str, default: int) -> list[int]:
        value: Any = given.get(name, default)
        items = [value] if isinstance(value, int) else list(value)
        if node.target is aten.conv1d.default:
            return [default, *items]
        return items * 2 if len(items) == 1 else items

    return (given["input"], given["weight"], given.get("bias"), pair("stride", 1),
            pair("padding", 0), pair("dilation", 1), given.get("groups", 1))  # fmt: skip


def _replace(module: GraphModule, tail: Node, target: Any, arguments: tuple[Any, ...]) -> Node:
    with module.graph.inserting_before(tail):
        made = module.graph.call_function(target, arguments)
    if "val" in tail.meta:
        made.meta["val"] = tail.meta["val"]
    tail.replace_all_uses_with(made)
    return made


def _tidy(module: GraphModule) -> GraphModule:
    module.graph.eliminate_dead_code(is_impure_node=lambda n: n.op in ("placeholder", "output"))
    module.delete_all_unused_submodules()
    module.recompile()
    return module
