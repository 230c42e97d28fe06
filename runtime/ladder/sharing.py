"""Tensors of several programs that are equal to the last bit, kept once."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterable, MutableMapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram

from ...graph.capture import module_of
from ...graph.state import written_buffers

PROBED = 64  # values of a tensor by which it is looked up; equal ones are then compared whole


def share_tensors(programs: Iterable[ExportedProgram]) -> int:
    """Let equal tensors of `programs` be one in memory. Returns the bytes that became free.

    What a graph writes into when it is called stays its own.
    """
    seen: dict[Hashable, list[Tensor]] = defaultdict(list)
    freed = 0
    for program in programs:
        own = _written(program)
        tables: tuple[MutableMapping[str, Any], ...] = (program.state_dict, program.constants)
        for table in tables:
            for name, tensor in table.items():
                if isinstance(tensor, Tensor) and name not in own:
                    freed += _share(table, name, tensor, seen[_look(tensor)])
    return freed


def _share(table: MutableMapping[str, Any], name: str, tensor: Tensor, alike: list[Tensor]) -> int:
    for other in alike:
        if other is tensor:
            return 0
        if torch.equal(_bits(other), _bits(tensor)):
            table[name] = other
            return tensor.numel() * tensor.element_size()
    alike.append(tensor)
    return 0


def _written(program: ExportedProgram) -> set[str]:
    """Names of the tensors that a call changes."""
    return set(written_buffers(module_of(program)))


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
