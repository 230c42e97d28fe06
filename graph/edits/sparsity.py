"""2:4 sparsity: of every four weights along the inputs at most two are not zero.

GPUs of compute capability 8.0 on multiply such matrices at up to twice the rate (Mishra et al.
2021, Accelerating Sparse Deep Neural Networks). Stored densely: the zeros are the mark.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.fx import GraphModule

from ..capture import tensor_at
from ..layers import Layer

CAPABLE = (8, 0)
HALVES = (torch.float16, torch.bfloat16)
ROWS, COLUMNS = 32, 64  # multiples that both of torch's backends take (torch.sparse)


def lacks_sparse_kernels(device: torch.device | str) -> str | None:
    """The reason why `device` can't run sparse weights, None if it can."""
    device = torch.device(device)
    if device.type == "cuda" and torch.cuda.get_device_capability(device) >= CAPABLE:
        return None
    return "needs a CUDA GPU of compute capability 8.0 or later"


def sparsifiable(module: GraphModule, layer: Layer) -> str | None:
    """The reason why the layer must stay dense, None if it need not."""
    weight = tensor_at(module, layer.weight)
    uses = sum(n.op == "get_attr" and n.target == layer.weight for n in module.graph.nodes)
    tied = sum(p is weight for _, p in module.named_parameters(remove_duplicate=False))
    if layer.spatial_dims:
        return "only linear layers have 2:4 kernels"
    if uses > 1 or tied > 1 or len(layer.node.all_input_nodes[1].users) > 1:
        return "its weight is used in more than one place"
    if weight.dtype not in HALVES:
        kind = str(weight.dtype).removeprefix("torch.")
        return (
            f"its weights are {kind}; 2:4 kernels take half precision, so `precision` comes first"
        )
    if weight.shape[0] % ROWS or weight.shape[1] % COLUMNS:
        return f"its weight {list(weight.shape)} is not a multiple of [{ROWS}, {COLUMNS}]"
    return None


def two_of_four(weight: Tensor, score: Tensor | None = None) -> Tensor:
    """`weight` [out, in] with the two of each four that score least set to 0; by size without."""
    fours = (weight.abs() if score is None else score).reshape(len(weight), -1, 4)
    gone = fours.argsort(dim=-1)[..., :2]
    return weight.reshape(fours.shape).scatter(-1, gone, 0.0).reshape(weight.shape)


def is_two_of_four(weight: Tensor) -> bool:
    filled = (weight.reshape(len(weight), -1, 4) != 0).sum(-1)
    return bool((filled <= 2).all())
