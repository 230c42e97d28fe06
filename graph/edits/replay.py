"""Edits replayed on the user's own class: its modules get the tensors and sizes they imply.

The class is captured to learn which module each edited node came from. Sizes that a class keeps in
attributes of its own (heads, widths of views) are found by their value; where several fit, the
caller's check on a stored sample decides between them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice, product

import torch
from torch import Tensor, nn
from torch.fx import GraphModule, Node
from torch.nn.modules.batchnorm import _BatchNorm

from ...core.errors import EditError
from ...core.model_io import Inputs
from ...core.naming import outside
from ..blocks import branch_of
from ..capture import capture, node_named
from ..failure import failure, owner_of, stack_of
from ..state import preserved_state
from .apply import (
    Cast,
    Constant,
    DropBlock,
    Edit,
    Factor,
    FoldBatchNorm,
    QuantizeInput,
    QuantizeWeight,
    Resize,
    SpatialFactor,
    TuckerFactor,
    apply,
)
from .copying import copied
from .modules import Absent, neutral, put_tensors, set_groups, without_norm
from .split_weights import plain_weights

TRIALS = 64
GROUPS: dict[object, tuple[int, ...]] = {torch.ops.aten.group_norm.default: (1,)}


@dataclass(frozen=True)
class Size:
    """A number in the graph that changed, and the modules it stood in, the innermost first."""

    modules: tuple[str, ...]
    old: int
    new: int
    groups: bool


def replayed(
    model: nn.Module,
    inputs: Inputs,
    edits: Iterable[Edit],
    tensors: Mapping[str, Tensor],
    accepts: Callable[[nn.Module], bool],
) -> nn.Module:
    """A copy of `model` with the edits carried out and `tensors` in it.

    The first version that `accepts`. Raises EditError naming the first module that can't follow.
    """
    graph = capture(copied(model), inputs)
    base = copied(model).eval()
    edits = list(edits)
    folded = _folded(graph, edits)
    sizes = _follow(graph, base, edits)
    put_tensors(base, plain_weights(base, tensors))
    for path, weight in folded:
        neutral(_at(base, path), len(tensors[outside(weight)]))
    open_sizes = [s for s in sizes if not (s.groups and set_groups(_at(base, s.modules[0]), s.new))]
    problem = ""
    for settings in islice(_settings(base, open_sizes), TRIALS):
        candidate = copied(base)
        for path, name, old, new in settings:
            _set(_at(candidate, path), name, old, new)
        with preserved_state(candidate):
            problem = failure(candidate, inputs)
        if not problem and accepts(candidate):
            return candidate
    unsettled = (s for s in open_sizes if not _candidates(base, s.modules, s.old)[1])
    raise EditError(_unlike(next(unsettled, None), base) or problem or "it computes something else")


def _follow(graph: GraphModule, base: nn.Module, edits: list[Edit]) -> list[Size]:
    """Carry structural edits out on `base`; what sizes changed in the graph comes back."""
    sizes: dict[tuple[str, tuple[int, ...]], Size] = {}
    for edit in edits:
        name = str(getattr(edit, "node", ""))
        node = node_named(graph, name) if name else None
        if isinstance(edit, Cast):
            raise EditError(f"`{type(base).__name__}` computes in {edit.dtype} in the artifact")
        if isinstance(edit, Resize):
            raise EditError(
                f"`{type(base).__name__}` gets inputs resized to {list(edit.size)} in the artifact"
            )
        if isinstance(edit, (Factor, SpatialFactor, TuckerFactor)):
            raise EditError(f"`{owner_of(node)}` is several layers in the artifact")
        if isinstance(edit, (QuantizeWeight, QuantizeInput)):
            raise EditError(f"`{owner_of(node)}` holds integers in the artifact")
        if isinstance(edit, FoldBatchNorm) and node is not None:
            _fold(base, owner_of(node))
        elif isinstance(edit, DropBlock) and node is not None:
            _leave_out(base, graph, node, edit.skip)
        elif isinstance(edit, Constant) and node is not None:
            key = (edit.node, edit.path)
            old = sizes[key].old if key in sizes else _argument(node, edit.path)
            sizes[key] = Size(stack_of(node)[::-1], old, edit.value, _is_groups(node, edit.path))
        apply(graph, [edit])
    return [s for s in sizes.values() if s.old != s.new]


def _at(model: nn.Module, path: str) -> nn.Module:
    return model.get_submodule(path)


def _replace(model: nn.Module, path: str, new: nn.Module) -> None:
    above, _, leaf = path.rpartition(".")
    setattr(_at(model, above), leaf, new)


def _folded(graph: GraphModule, edits: list[Edit]) -> list[tuple[str, str]]:
    """Each batch norm that is folded, and the weight it goes into."""
    nodes = [node_named(graph, e.node) for e in edits if isinstance(e, FoldBatchNorm)]
    return [(owner_of(n), str(n.args[0].args[1].target)) for n in nodes if n is not None]  # type: ignore[union-attr]


def _fold(base: nn.Module, path: str) -> None:
    norm = _at(base, path)
    if not isinstance(norm, _BatchNorm) or not path:
        raise EditError(f"`{path}` ({type(norm).__name__}) holds a batch norm that was folded away")
    _replace(base, path, without_norm(norm))


def _leave_out(base: nn.Module, graph: GraphModule, total: Node, skip: str) -> None:
    """The modules of the branch become copies, the last one zeros."""
    start = node_named(graph, skip)
    other = next((n for n in total.all_input_nodes if n is not start), None)
    depth, owner = len(stack_of(total)), owner_of(total)
    if start is None or other is None or len(stack_of(other)) <= depth:
        raise EditError(f"`{owner}` computes a dropped branch itself, not by a module of its own")
    last = stack_of(other)[depth]
    inside = {stack_of(n)[depth] for n in branch_of(total, start) if len(stack_of(n)) > depth}
    for path in sorted(inside):
        module = _at(base, path)
        if path == last or any(True for _ in module.parameters()):
            pair = isinstance(module, nn.MultiheadAttention)
            _replace(base, path, Absent(path == last, pair))


def _argument(node: Node, path: tuple[int, ...]) -> int:
    value: object = node.args
    for index in path:
        value = value[index] if isinstance(value, (list, tuple)) and index < len(value) else None
    return value if isinstance(value, int) else -1


def _is_groups(node: Node, path: tuple[int, ...]) -> bool:
    return ("conv" in str(node.target) and len(path) == 1) or GROUPS.get(node.target) == path


Setting = tuple[str, str, int, int]  # module, attribute, old and new value


def _settings(base: nn.Module, sizes: list[Size]) -> Iterator[list[Setting]]:
    """Ways to set the classes' own attributes: all that have the old value, then one alone."""
    choices = []
    for modules, old, new in dict.fromkeys((s.modules, s.old, s.new) for s in sizes):
        path, names = _candidates(base, modules, old)
        all_of_them = [(path, name, old, new) for name in names]
        alone = [[setting] for setting in all_of_them] if len(names) > 1 else []
        choices.append([all_of_them, *alone])
    for chosen in product(*choices):
        yield [setting for part in chosen for setting in part]


def _candidates(base: nn.Module, modules: tuple[str, ...], value: int) -> tuple[str, list[str]]:
    """The innermost module with integers of that value, and their names."""
    for path in modules:
        try:
            module = _at(base, path)
        except AttributeError:  # a parametrization that was made plain
            continue
        names = [n for n, v in vars(module).items() if not n.startswith("_") and _holds(v, value)]
        if names or type(module).__module__.startswith("torch.nn."):
            return path, names
    return "", []


def _holds(value: object, number: int) -> bool:
    if isinstance(value, (tuple, list)):
        return any(type(v) is int and v == number for v in value)
    return type(value) is int and value == number


def _set(module: nn.Module, name: str, old: int, new: int) -> None:
    value = getattr(module, name)
    if isinstance(value, (tuple, list)):
        setattr(module, name, type(value)(new if v == old else v for v in value))
    else:
        setattr(module, name, new)


def _unlike(size: Size | None, base: nn.Module) -> str:
    if size is None:
        return ""
    path = size.modules[0]
    kind = type(_at(base, path)).__name__
    return f"`{path or kind}` has the size {size.old} in its code, not in an attribute"
