"""Tensors of several rungs that are equal to the last bit, kept once."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterable

import torch
from torch import Tensor, nn
from torch.fx import GraphModule

from ...graph.state import written_buffers

PROBED = 64  # values of a tensor by which it is looked up; equal ones are then compared whole


def share_tensors(graphs: Iterable[GraphModule]) -> int:
    """Let equal tensors of `graphs` be one in memory. Returns the bytes that became free.

    What a graph writes into when it is called stays its own.
    """
    seen: dict[Hashable, list[Tensor]] = defaultdict(list)
    freed = 0
    for graph in graphs:
        own = set(written_buffers(graph))
        for name, tensor in (*graph.named_parameters(), *graph.named_buffers()):
            if name not in own:
                freed += _share(tensor, seen[_look(tensor)])
    return freed


def _share(tensor: Tensor, alike: list[Tensor]) -> int:
    for other in alike:
        if other.data_ptr() == tensor.data_ptr():
            return 0
        if torch.equal(_bits(other), _bits(tensor)):
            tensor.data = other.data  # whoever holds the tensor sees it
            return tensor.numel() * tensor.element_size()
    alike.append(tensor)
    return 0


def _look(tensor: Tensor) -> Hashable:
    flat = tensor.detach().reshape(-1)
    probe = flat[:: max(1, len(flat) // PROBED)][:PROBED]
    return (
        isinstance(tensor, nn.Parameter),
        tensor.dtype,
        tuple(tensor.shape),
        tensor.stride(),
        str(tensor.device),
        tuple(_bits(probe).tolist()),
    )


def _bits(tensor: Tensor) -> Tensor:
    return tensor.detach().contiguous().reshape(-1).view(torch.uint8)
