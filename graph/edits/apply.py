"""Edits: every change of a graph as data. `apply` is the only code that changes one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from typing import Any

import torch
from torch.fx import GraphModule, Node

from ...core.errors import EditError
from ..blocks import Block
from ..capture import node_named, replace_tensor, tensor_at
from .casting import cast
from .dropping import drop_block
from .equalizing import equalize
from .factoring import factor
from .folding import fold_batchnorm
from .integer_weights import quantize_weight
from .kernel_factoring import factor_spatial, factor_tucker
from .kinds import (
    KINDS,
    Cast,
    Constant,
    DropBlock,
    Edit,
    Equalize,
    Factor,
    FoldBatchNorm,
    QuantizeDynamic,
    QuantizeInput,
    QuantizeWeight,
    Resize,
    ScaleParameter,
    Slice,
    Sparsify,
    SpatialFactor,
    ToChannelsLast,
    TuckerFactor,
    ZeroSubnormals,
)
from .quantization import quantize_dynamic, quantize_input
from .resizing import resize
from .sparsity import two_of_four

__all__ = [
    "KINDS",
    "Cast",
    "Constant",
    "DropBlock",
    "Edit",
    "Equalize",
    "Factor",
    "FoldBatchNorm",
    "QuantizeDynamic",
    "QuantizeInput",
    "QuantizeWeight",
    "Resize",
    "ScaleParameter",
    "Slice",
    "Sparsify",
    "SpatialFactor",
    "ToChannelsLast",
    "TuckerFactor",
    "ZeroSubnormals",
    "apply",
    "edits_from_json",
    "edits_to_json",
    "kept_indices",
    "leave_out",
]
_KEYS: dict[object, str] = {kind: key for key, kind in KINDS.items()}


def leave_out(blocks: Sequence[Block]) -> tuple[DropBlock, ...]:
    """Edits that drop blocks given in graph order: the last first, since what a block starts from
    may be the sum of the one before it."""
    return tuple(DropBlock(b.total, b.skip) for b in reversed(blocks))


def edits_to_json(edits: Iterable[Edit]) -> list[dict[str, Any]]:
    return [{"edit": _KEYS[type(e)], **asdict(e)} for e in edits]


def edits_from_json(data: Iterable[dict[str, Any]]) -> list[Edit]:
    """Inverse of `edits_to_json`. Raises EditError on an unknown kind or field."""
    edits: list[Edit] = []
    for number, entry in enumerate(data):
        fields = {k: tuple(v) if isinstance(v, list) else v for k, v in entry.items()}
        kind = KINDS.get(str(fields.pop("edit", "")))
        if kind is None:
            raise EditError(f"`edits[{number}]` has an unknown kind; known: {', '.join(KINDS)}.")
        try:
            edits.append(kind(**fields))
        except TypeError as error:
            raise EditError(f"`edits[{number}]` does not fit `{_KEYS[kind]}`: {error}.") from error
    return edits


def kept_indices(edits: Iterable[Edit]) -> dict[tuple[str, int], tuple[int, ...]]:
    """By parameter and axis: which of the original's indices are left after all slices."""
    left: dict[tuple[str, int], tuple[int, ...]] = {}
    for edit in edits:
        if isinstance(edit, Slice):
            before = left.get((edit.param, edit.dim))
            kept = edit.keep if before is None else tuple(before[i] for i in edit.keep)
            left[(edit.param, edit.dim)] = kept
    return left


def apply(module: GraphModule, edits: Iterable[Edit]) -> GraphModule:
    """Carry the edits out on `module` itself, in order, and return it.

    Raises EditError where an edit names a node or parameter the graph does not have.
    """
    for edit in edits:
        _APPLY[type(edit)](module, edit)
    module.graph.eliminate_dead_code()
    module.recompile()
    return module


def _slice(module: GraphModule, edit: Slice) -> None:
    tensor = _tensor(module, edit.param)
    if edit.dim >= tensor.dim() or not edit.keep or max(edit.keep) >= tensor.shape[edit.dim]:
        raise EditError(
            f"`{edit.param}` has shape {tuple(tensor.shape)}; axis {edit.dim} can't be cut to "
            f"{len(edit.keep)} indices up to {max(edit.keep, default=-1)}."
        )
    index = torch.tensor(edit.keep, device=tensor.device)
    replace_tensor(module, edit.param, tensor.detach().index_select(edit.dim, index).contiguous())


def _constant(module: GraphModule, edit: Constant) -> None:
    node = _node(module, edit.node)
    node.args = _with(node.args, edit.path, edit.value)


def _with(values: Any, path: tuple[int, ...], value: int) -> Any:
    if not path:
        return value
    items = list(values)
    if path[0] >= len(items):
        raise EditError(f"argument {path} does not exist on the node.")
    items[path[0]] = _with(items[path[0]], path[1:], value)
    return type(values)(items) if isinstance(values, tuple) else items


def _channels_last(module: GraphModule, edit: ToChannelsLast) -> None:
    node = _node(module, edit.node)
    with module.graph.inserting_after(node):
        laid = module.graph.call_function(
            torch.ops.aten.contiguous.default, (node,), {"memory_format": torch.channels_last}
        )
    node.replace_all_uses_with(laid, delete_user_cb=lambda user: user is not laid)


def _flush(module: GraphModule, edit: ZeroSubnormals) -> None:
    tensor = _tensor(module, edit.param).detach()
    tiny = torch.finfo(tensor.dtype).tiny
    replace_tensor(module, edit.param, torch.where(tensor.abs() < tiny, 0.0, tensor))


def _sparsify(module: GraphModule, edit: Sparsify) -> None:
    tensor = _tensor(module, edit.param).detach()
    if tensor.dim() != 2 or tensor.shape[1] % 4:
        raise EditError(
            f"`{edit.param}` has shape {tuple(tensor.shape)}; 2:4 sparsity takes two axes, the "
            "second a multiple of 4."
        )
    replace_tensor(module, edit.param, two_of_four(tensor))


_APPLY: dict[type, Callable[[GraphModule, Any], object]] = {
    Slice: _slice,
    Constant: _constant,
    ScaleParameter: lambda m, e: replace_tensor(
        m, e.param, _tensor(m, e.param).detach() * e.factor
    ),
    FoldBatchNorm: lambda m, e: fold_batchnorm(m, _node(m, e.node)),
    ToChannelsLast: _channels_last,
    ZeroSubnormals: _flush,
    DropBlock: lambda m, e: drop_block(m, _node(m, e.node), _node(m, e.skip)),
    Equalize: lambda m, e: equalize(m, _node(m, e.node), torch.tensor(e.factors)),
    QuantizeWeight: lambda m, e: quantize_weight(m, _node(m, e.node), e.group),
    QuantizeInput: lambda m, e: quantize_input(
        m, _node(m, e.node), e.place, e.scale, e.zero_point, e.levels
    ),
    QuantizeDynamic: lambda m, e: quantize_dynamic(m, _node(m, e.node), e.place, e.half),
    Cast: lambda m, e: cast(m, e.dtype, [_node(m, name) for name in e.keep]),
    Factor: lambda m, e: factor(m, _node(m, e.node), e.rank),
    SpatialFactor: lambda m, e: factor_spatial(m, _node(m, e.node), e.rank),
    TuckerFactor: lambda m, e: factor_tucker(m, _node(m, e.node), e.ranks),
    Resize: lambda m, e: resize(m, [_node(m, name) for name in e.nodes], e.size),
    Sparsify: _sparsify,
}


def _node(module: GraphModule, name: str) -> Node:
    node = node_named(module, name)
    if node is None:
        raise EditError(f"the graph has no node `{name}`; was it captured from another model?")
    return node


def _tensor(module: GraphModule, name: str) -> torch.Tensor:
    try:
        return tensor_at(module, name)
    except (AttributeError, AssertionError) as error:
        raise EditError(f"the graph has no parameter `{name}`.") from error
