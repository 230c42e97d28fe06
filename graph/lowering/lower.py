"""Lowering: a captured graph rewritten to this device's fast kernels. Done at load, never stored.

Batch norms are folded, dropout goes, images run channels-last. On a CPU, weights of convolutions
and linear layers are prepacked for oneDNN where that is faster, with what follows fused into them
(prepack.py); on a GPU, weights that are 2:4 sparse go to its sparse kernels.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

import torch
from torch import Tensor
from torch.fx import GraphModule

from ...core.model_io import Inputs
from ..capture import clone, tensor_at
from ..edits.folding import fold_batchnorm, foldable
from ..mutation import hazards, write_alone
from ..operators import aten, mkldnn
from .packing import tidy
from .prepack import PackingTest, always, prepacked
from .sparse import sparse_weights
from .weight_only import float_weights

_IMAGE_LAYERS = (aten.conv2d.default, aten.conv2d.padding, aten.conv_transpose2d.input)
_NOTHING = (aten.dropout.default, aten.dropout_.default, aten.feature_dropout.default,
            aten.feature_dropout_.default)  # fmt: skip


def lowerings(
    module: GraphModule, inputs: Inputs, test: PackingTest = always
) -> dict[str, Callable[[], GraphModule]]:
    """Named lowerings worth timing here; which one is fastest differs from net to net.

    `test` says which layers are worth prepacking. No lowering is there for a graph with writes that
    others see, which torch could not take out of it.
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
        options["onednn"] = lambda: prepacked(folded_copy(module), inputs, nhwc=False, test=test)
        if images:
            options["onednn_channels_last"] = lambda: prepacked(
                channels_last(folded_copy(module)), inputs, nhwc=True, test=test
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
