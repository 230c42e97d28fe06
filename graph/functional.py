"""Programs without writes that others see: results in place of what is overwritten.

`x[:, :n] = y` becomes the concatenation of `y` and the rest of `x`. Buffers are written once, at
the end, by plain copies. Inputs are never written: a graph gives the outputs that the model gives,
and leaves the caller's tensors as they were.
"""

from __future__ import annotations

import operator
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch._dispatch.python import enable_python_dispatcher
from torch.export import ExportedProgram
from torch.fx import GraphModule, Node
from torch.fx.node import Argument, map_arg

from .mutation import Aliases, hazards, is_last_write
from .operators import aten

END = 2**63 - 1
_DROPOUTS = (aten.dropout.default, aten.feature_dropout.default, aten.alpha_dropout.default,
             aten.feature_alpha_dropout.default)  # fmt: skip


def functional(program: ExportedProgram, module: GraphModule) -> GraphModule:
    """`module` of `program`, rewritten by torch's own functionalization where it needs to be.

    A program that torch can't rewrite comes back as it is: `hazards` still finds its writes, and
    it runs as exported, under no other runtime.
    """
    if not hazards(module):
        return module
    for node in program.graph.nodes:  # torch makes copies of what these give as it is
        if node.target in _DROPOUTS and not node.args[2]:
            node.target, node.args, node.kwargs = aten.alias.default, node.args[:1], {}
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            rewritten = program.run_decompositions({}).module(check_guards=False)
    except Exception:
        return module
    assert isinstance(rewritten, GraphModule)
    _give_values(rewritten)
    for node in list(rewritten.graph.nodes):
        if rewrite := _REWRITES.get(node.target):
            rewrite(node)
    _write_last(rewritten)
    rewritten.graph.eliminate_dead_code(lambda n: n.op != "call_function" or n.is_impure())
    rewritten.recompile()
    return rewritten


def _give_values(module: GraphModule) -> None:
    """Who reads what was copied gets the value itself; inputs are not written."""
    for node in list(module.graph.nodes):
        if node.target is not aten.copy_.default:
            continue
        node.replace_all_uses_with(node.args[1])
        if node.args[0].op == "placeholder":
            module.graph.erase_node(node)


def _write_last(module: GraphModule) -> None:
    """Refuse to write or return, after the first write, a value that it has overwritten."""
    ends = [n for n in module.graph.nodes if is_last_write(n)]
    if not ends:
        return
    aliases = Aliases(module)
    old = {other for node in ends for other in aliases.of(node.args[0])}
    for reader in (*ends, module.graph.output_node()):
        for value in reader.all_input_nodes:
            if value in old and value is not (reader.args[0] if reader in ends else None):
                reader.replace_input_with(value, _called(ends[0], aten.clone.default, value))
    for node in ends:  # a state that remembers how it was computed would be trained through
        node.args = (node.args[0], _called(node, aten.detach.default, node.args[1]))


def _batch_norm(node: Node) -> None:
    """The operator that all other passes know, in place of what it was decomposed into."""
    without = node.target is aten._native_batch_norm_legit.no_stats
    data, weight, bias, *rest = node.args
    if without:
        arguments = (data, weight, bias, None, None, *rest)
    else:
        arguments = (data, weight, bias, rest[0], rest[1], False, *rest[2:])
    items = list(node.users)
    if any(n.target is not operator.getitem or (n.args[1] and n.users) for n in items):
        return
    for item in items:
        if item.args[1] == 0:
            usual = (*arguments, torch.backends.cudnn.enabled)
            _replace(item, _called(item, aten.batch_norm.default, *usual))


def _slice(node: Node) -> None:
    """All of something is that itself."""
    source, axis, start, end, step = _given(node, 0, 0, None, None, 1)
    if step == 1 and start in (0, None) and end in (END, None, _size(source, axis)):
        _replace(node, source)


def _slice_scatter(node: Node) -> None:
    base, part, axis, start, end, step = _given(node, 0, 0, 0, None, None, 1)
    size, start = _size(base, axis), 0 if start is None else start
    part = _uncopied(part)
    if step == 1 and start == 0 and end in (END, None, size) and _alike(base, part):
        _replace(node, part)
    if step != 1 or size is None or not isinstance(start, int) or not isinstance(end, int | None):
        return
    start, end, _ = slice(start, end).indices(size)
    if _same_format(base, part) and start < end:
        _replace(node, _assembled(node, base, [part], axis, start, end))


def _select_scatter(node: Node) -> None:
    base, part, axis, index = _given(node, 0, 0, 0, 0)
    size, part = _size(base, axis), _uncopied(part)
    if size is None or not isinstance(index, int) or not _same_format(base, part):
        return
    at = index % size
    wide = _called(node, aten.unsqueeze.default, part, axis)
    _replace(node, _assembled(node, base, [wide], axis, at, at + 1))


def _assembled(node: Node, base: Node, parts: list[Node], axis: int, start: int, end: int) -> Node:
    """`base` with `parts` in place of what it has from `start` to `end`."""
    size = _size(base, axis)
    assert size is not None
    if start:
        parts.insert(0, _called(node, aten.slice.Tensor, base, axis, 0, start))
    if end < size:
        parts.append(_called(node, aten.slice.Tensor, base, axis, end, END))
    return _called(node, aten.cat.default, parts, axis)


def _uncopied(part: Node) -> Node:
    """The value that is copied over all of a place."""
    copied = part.args[1] if part.target is aten.copy.default else None
    return copied if isinstance(copied, Node) and _alike(part, copied) else part


def _alike(a: Node, b: Node) -> bool:
    x, y = a.meta.get("val"), b.meta.get("val")
    shaped = isinstance(x, Tensor) and isinstance(y, Tensor) and str(x.shape) == str(y.shape)
    return shaped and _same_format(a, b)


def _same_format(a: Node, b: Node) -> bool:
    x, y = a.meta.get("val"), b.meta.get("val")
    return isinstance(x, Tensor) and isinstance(y, Tensor) and x.dtype == y.dtype


def _given(node: Node, *defaults: Any) -> list[Any]:
    return [*node.args, *defaults[len(node.args) :]]


def _size(node: Node, axis: int) -> int | None:
    value = node.meta.get("val")
    size = value.shape[axis] if isinstance(value, Tensor) else None
    return size if isinstance(size, int) else None


def _called(before: Node, target: Callable[..., object], *arguments: Argument) -> Node:
    """A new call ahead of `before`, which it comes from, with its example value."""
    with before.graph.inserting_before(before):
        call = before.graph.call_function(target, arguments)
    call.meta = {k: v for k, v in before.meta.items() if k != "val"}
    values = map_arg(arguments, lambda n: n.meta.get("val"))
    with enable_python_dispatcher(), torch.no_grad():
        call.meta["val"] = target(*values)
    return call


def _replace(node: Node, instead: Node) -> None:
    node.replace_all_uses_with(instead)
    node.graph.erase_node(node)


_REWRITES: dict[object, Callable[[Node], None]] = {
    aten._native_batch_norm_legit_no_training.default: _batch_norm,
    aten._native_batch_norm_legit.no_stats: _batch_norm,
    aten.slice.Tensor: _slice,
    aten.slice_scatter.default: _slice_scatter,
    aten.select_scatter.default: _select_scatter,
}
