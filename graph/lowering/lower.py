"""Lowering: a captured graph rewritten to this device's fast kernels. Done at load, never stored.

Batch norms are folded, dropout goes, images run channels-last. On a CPU, weights of convolutions
and linear layers are prepacked for oneDNN, activations and residual adds are fused into them; on
a GPU, weights that are 2:4 sparse go to its sparse kernels.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

import torch
from torch import Tensor
from torch.fx import GraphModule, Node

from ...core.model_io import Inputs
from ..capture import clone, tensor_at
from ..edits.folding import fold_batchnorm, foldable
from ..mutation import hazards, is_written, write_alone
from ..operators import Arguments, aten, mkldnn
from .fusing import Activation, Residual, activation_of, residual_of
from .int8 import lower_int8
from .kernels import convolves, groups_like, multiplies, post_of
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
from .sparse import sparse_weights
from .weight_only import float_weights, lower_weights

_CONVOLUTIONS = (aten.conv1d.default, aten.conv2d.default)
_IMAGE_LAYERS = (aten.conv2d.default, aten.conv2d.padding, aten.conv_transpose2d.input)
_NOTHING = (aten.dropout.default, aten.dropout_.default, aten.feature_dropout.default,
            aten.feature_dropout_.default)  # fmt: skip


def lowerings(module: GraphModule, inputs: Inputs) -> dict[str, Callable[[], GraphModule]]:
    """Named lowerings worth timing here; which one is fastest differs from net to net.

    None for a graph with writes that others see, which torch could not take out of it.
    """

    if hazards(module):  # kernels change the order of reading and writing
        return {}

    def folded() -> GraphModule:
        return sparse_weights(float_weights(folded_copy(module)))

    options: dict[str, Callable[[], GraphModule]] = {"folded": folded}
    images = any(x.dim() == 4 for x in inputs)
    if images:
        options["channels_last"] = lambda: channels_last(folded())
    if can_prepack(inputs):
        options["onednn"] = lambda: prepacked(folded_copy(module), inputs, nhwc=False)
        if images:
            options["onednn_channels_last"] = lambda: prepacked(
                channels_last(folded_copy(module)), inputs, nhwc=True
            )
    return options


def lower(module: GraphModule, inputs: Inputs) -> GraphModule:
    """The furthest lowering this device takes, as a new module. `module` is not changed."""
    for build in reversed(list(lowerings(module, inputs).values())):
        with suppress(Exception):  # what one of them can't do, the one before it may
            return build()
    return clone(module)


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
    copied = clone(module)
    write_alone(copied)
    for node in list(copied.graph.nodes):
        if node.target in _NOTHING and not node.args[2]:
            node.replace_all_uses_with(node.args[0])
            copied.graph.erase_node(node)
        elif foldable(node):
            fold_batchnorm(copied, node)
        elif node.target is aten.view.default:  # kernels give other layouts than the model's own
            node.target = aten.reshape.default
    for parameter in copied.parameters():
        parameter.requires_grad_(False)
    return tidy(copied)


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
    for weight in _image_weights(module):
        weight.data = weight.data.to(memory_format=torch.channels_last)
    return tidy(module)


def _image_weights(module: GraphModule) -> list[Tensor]:
    """Other parameters of four dimensions may be read by operators that need their last one dense,
    as complex numbers are."""
    weights = [n.args[1] for n in module.graph.nodes if n.target in _IMAGE_LAYERS]
    names = dict.fromkeys(str(w.target) for w in weights if w.op == "get_attr")
    return [tensor_at(module, name) for name in names]


def prepacked(module: GraphModule, inputs: Inputs, *, nhwc: bool) -> GraphModule:
    """Replace convolutions and linear layers by prepacked oneDNN ones with fused neighbors.

    `nhwc`: images run channels-last.
    """
    samples = inputs[0].shape[0] if inputs[0].dim() else 1
    lower_int8(module, samples)
    lower_weights(module, samples)
    float_weights(module)
    packs = Packs(module)
    for node in list(module.graph.nodes):
        if node.target in _CONVOLUTIONS and _fits(node):
            if nhwc and is_pointwise(node):
                _lower_pointwise(module, node, packs, samples)
            else:
                _lower_convolution(module, node, packs)
        elif node.target is aten.linear.default and _fits(node):
            _lower_linear(module, node, packs, samples)
    return tidy(module)


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


def _weight(node: Node) -> Tensor:
    weight, module = node.args[1], node.graph.owning_module
    assert isinstance(weight, Node) and module is not None
    return tensor_at(module, str(weight.target))


def _lower_convolution(module: GraphModule, node: Node, packs: Packs) -> None:
    data, weight, bias, stride, padding, dilation, groups = conv_arguments(node)
    signal = node.target is aten.conv1d.default  # runs as an image of height 1
    kernel = tensor_at(module, str(weight.target)).detach()
    sizes = (padding, stride, dilation, groups)
    with torch.no_grad():
        packed = mkldnn._reorder_convolution_weight(
            kernel.unsqueeze(2) if signal else kernel, *sizes
        )
    residual, act = _fused_into_convolution(node)
    tail = act.node if act is not None else residual.add if residual is not None else node

    def image(value: Node) -> Node:
        return as_image(module, value, tail) if signal else value

    if residual is not None:
        target = mkldnn._convolution_pointwise.binary
        arguments: Arguments = (
            image(data), image(residual.other), packs.add(packed, tail), bias, *sizes,
            "add", 1.0, act.name if act else None, list(act.scalars) if act else [],
            act.algorithm if act else None,
        )  # fmt: skip
    else:
        name, scalars, algorithm = post_of(act)
        target = mkldnn._convolution_pointwise.default
        arguments = (
            image(data), packs.add(packed, tail), bias, *sizes, name, list(scalars), algorithm,
        )  # fmt: skip
    call = replace(module, tail, target, arguments)
    call.meta[LAYER] = node.name
    if signal:
        back_to_signal(module, call)


def _fused_into_convolution(node: Node) -> tuple[Residual | None, Activation | None]:
    """The most of what follows that the kernel takes: which it does differs from one to another."""
    weight, residual = _weight(node), residual_of(node)
    dtype, groups = weight.dtype, groups_like(conv_arguments(node)[-1], len(weight))
    # Sums after grouped convolutions are not oneDNN's; torch's own in half precision know no more
    # than the sum, and not in every shape.
    sums = groups == 1 or dtype == torch.float32
    if residual is not None and sums and convolves(dtype, groups, summed=True):
        act = activation_of(residual.add)
        fits = act is not None and convolves(dtype, groups, post_of(act), summed=True)
        return residual, act if fits else None
    act = activation_of(node)
    return None, act if act is not None and convolves(dtype, groups, post_of(act)) else None


def _fused_into_linear(node: Node) -> tuple[Residual | None, Activation | None]:
    """A residual or an activation: these kernels take one of the two."""
    dtype, residual, act = _weight(node).dtype, residual_of(node), activation_of(node)
    if residual is not None and multiplies(dtype, summed=True):
        return residual, None
    return None, act if act is not None and multiplies(dtype, post_of(act)) else None


def _lower_pointwise(module: GraphModule, node: Node, packs: Packs, samples: int) -> None:
    """A 1x1 convolution on an NHWC image is a linear layer on its places, whose kernels are faster
    (on an AMX machine in bfloat16, 160 channels to 960 at 7x7: 170 times)."""
    both = _fused_into_convolution(node)
    if both[0] is not None and both[1] is not None:  # linear layers take one of the two
        return _lower_convolution(module, node, packs)
    residual, act = _fused_into_linear(node)
    tail = residual.add if residual is not None else act.node if act is not None else node
    data, weight, bias = conv_arguments(node)[:3]
    tensor = tensor_at(module, str(weight.target)).detach().flatten(1).contiguous()
    with torch.no_grad():
        packed = mkldnn._reorder_linear_weight(tensor, positions_of(node, samples))
    source, weights = as_rows(module, data, tail), packs.add(packed, tail)
    if residual is not None:
        target = mkldnn._linear_pointwise.binary
        other = as_rows(module, residual.other, tail)
        arguments: Arguments = (source, other, weights, bias, "add")
    else:
        target, (name, scalars, algorithm) = mkldnn._linear_pointwise.default, post_of(act)
        arguments = (source, weights, bias, name, list(scalars), algorithm)
    call = replace(module, tail, target, arguments)
    call.meta[LAYER] = node.name
    back_to_image(module, call)


def _lower_linear(module: GraphModule, node: Node, packs: Packs, samples: int) -> None:
    act = activation_of(node)
    if act is not None and not multiplies(_weight(node).dtype, post_of(act)):
        act = None
    tail = act.node if act else node
    name, scalars, algorithm = post_of(act)
    with torch.no_grad():
        packed = mkldnn._reorder_linear_weight(_weight(node).detach(), samples)
    bias = node.args[2] if len(node.args) > 2 else None
    arguments = (node.args[0], packs.add(packed, tail), bias, name, list(scalars), algorithm)
    call = replace(module, tail, mkldnn._linear_pointwise.default, arguments)
    call.meta[LAYER] = node.name
