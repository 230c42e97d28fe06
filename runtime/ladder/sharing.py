"""Tensors of several rungs that are equal to the last bit, kept once."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterable, Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.fx import GraphModule

from ...graph.capture import tensor_at
from ...graph.lowering.live import tensors_of
from ...graph.state import written_buffers

PROBED = 64  # values of a tensor by which it is looked up; equal ones are then compared whole
PACKED = torch._mkldnn  # type: ignore[attr-defined]  # the layout of weights packed for oneDNN


def share_tensors(rungs: Iterable[Sequence[GraphModule]]) -> int:
    """Let equal tensors of all graphs be one in memory. Returns the bytes that became free.

    `rungs`: the graph of each, and those made from it that run. What a call writes into stays a
    rung's own.
    """
    seen: dict[Hashable, list[Tensor]] = defaultdict(list)
    freed = 0
    for graphs in rungs:
        for tensor in _constants(graphs):
            freed += _share(tensor, seen[_look(tensor)])
    return freed


def _constants(graphs: Sequence[GraphModule]) -> Iterator[Tensor]:
    """Each tensor once that no call of a graph writes into."""
    done = {id(tensor_at(graph, name)) for graph in graphs for name in written_buffers(graph)}
    for graph in graphs:
        for tensor in tensors_of(graph).values():
            if id(tensor) not in done:
                done.add(id(tensor))
                yield tensor


def _share(tensor: Tensor, alike: list[Tensor]) -> int:
    for other in alike:
        if _is_same_memory(other, tensor):
            return 0
        if torch.equal(_bits(other), _bits(tensor)):
            tensor.data = other.data  # whoever holds the tensor sees it
            return tensor.numel() * tensor.element_size()
    alike.append(tensor)
    return 0


def _is_same_memory(a: Tensor, b: Tensor) -> bool:
    return a.layout is torch.strided and a.data_ptr() == b.data_ptr()


def _look(tensor: Tensor) -> Hashable:
    """Equal for tensors that may be equal and lie in memory in the same way."""
    kind = (isinstance(tensor, nn.Parameter), tensor.dtype, tuple(tensor.shape), tensor.device.type)
    if tensor.layout is PACKED:
        form = torch.ops.mkldnn._get_mkldnn_serialized_md(tensor)
        return (*kind, bytes(form.tolist()))
    if tensor.layout is not torch.strided:
        return (id(tensor),)
    flat = tensor.detach().reshape(-1)
    probe = flat[:: max(1, len(flat) // PROBED)][:PROBED]
    return (*kind, tensor.stride(), str(tensor.device), tuple(_bits(probe).tolist()))


def _bits(tensor: Tensor) -> Tensor:
    dense = tensor.detach()
    if dense.layout is PACKED:
        dense = dense.to_dense()
    return dense.contiguous().reshape(-1).view(torch.uint8)
