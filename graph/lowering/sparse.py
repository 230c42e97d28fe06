"""Sparse lowering: 2:4 weights in the form that the kernels take."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import torch
from torch import Tensor
from torch.fx import GraphModule

from ..capture import tensor_at
from ..edits.sparsity import is_two_of_four, lacks_sparse_kernels, sparsifiable
from ..layers import layers_of
from .packing import Packs, tidy


def sparse_weights(
    module: GraphModule, convert: Callable[[Tensor], Tensor] | None = None
) -> GraphModule:
    """In place: linear layers whose weight is 2:4 read it in the form that the kernels take.

    Nothing changes on a device without them. `convert` is torch's conversion.
    """
    packs = Packs(module)
    for layer in list(layers_of(module)):
        weight = tensor_at(module, layer.weight).detach()
        able = convert is not None or lacks_sparse_kernels(weight.device) is None
        if able and sparsifiable(module, layer) is None and is_two_of_four(weight):
            packed = packs.add((convert or _converted)(weight), layer.node)
            layer.node.update_arg(1, packed)
    return tidy(module)


def _converted(weight: Tensor) -> Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that the interface may still change
        return torch.sparse.to_sparse_semi_structured(weight.contiguous())
