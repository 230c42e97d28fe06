"""A model as the ATen graph of `torch.export`: the one form everything else works on."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor
from torch.export import Dim, ExportedProgram
from torch.fx import GraphModule, Node
from torch.utils._pytree import tree_leaves

from ..core.errors import CaptureError, text_line
from ..core.model_io import AnyInputs, Inputs, plain
from ..core.naming import with_names_inside
from ..core.span import Span
from .canonical import canonicalize
from .functional import functional


def export_program(model: nn.Module, inputs: AnyInputs) -> ExportedProgram:
    """Export `model` (set to eval) with a dynamic batch where the model allows it.

    `inputs` are example tensors by place or by name, which say where their batch is. Outputs of the
    user's own classes (dataclasses) become dicts, so that the program loads without them. Raises
    CaptureError with the exporter's first line where neither a dynamic nor a fixed batch
    can be captured.
    """
    with suppress(NotImplementedError):  # a captured graph is in eval mode and refuses to switch
        model.eval()
    given = Inputs.of(inputs)
    # A hook instead of a wrapper module: parameters keep their names.
    handle = model.register_forward_hook(lambda _module, _args, outputs: plain(outputs))
    try:
        with warnings.catch_warnings(), torch.no_grad(), _attributes_kept(model):
            warnings.simplefilter("ignore")
            program = _export(model, given)
    finally:
        handle.remove()
    return program if isinstance(model, GraphModule) else with_names_inside(program)


@contextmanager
def _attributes_kept(model: nn.Module) -> Iterator[None]:
    """Tensors that a forward keeps in plain attributes (anchors by shape) would be the exporter's
    fake tensors, which the model's next call would then compute with. A module that kept any gets
    back all that it had; others may remember what they did (hooks that are installed once)."""
    before = [(module, dict(vars(module))) for module in model.modules()]
    try:
        yield
    finally:
        for module, kept in before:
            now = vars(module)
            changed = [n for n in now if n not in kept or now[n] is not kept[n]]
            if any(isinstance(x, FakeTensor) for n in changed for x in tree_leaves(now[n])):
                for name in changed:
                    del now[name]
                now.update(kept)


def _export(model: nn.Module, inputs: Inputs) -> ExportedProgram:
    if inputs.varies:
        with suppress(Exception):  # the sizes shown are all that it takes, then
            return _export_dynamic(model, inputs)
    try:
        return _export_dynamic(model, replace(inputs, varies=()))
    except Exception:
        # Models that compute with the batch size as a number can only be captured fixed.
        try:
            return torch.export.export(model, inputs.args, dict(inputs.kwargs))
        except Exception as error:
            first = text_line(error)
            raise CaptureError(
                f"`torch.export` can't capture `{type(model).__name__}` with inputs "
                f"{[tuple(x.shape) for x in inputs]}: {first}."
            ) from error


def _export_dynamic(model: nn.Module, inputs: Inputs) -> ExportedProgram:
    # A size of 1 would be specialized (torch treats 0 and 1 as constants), so two are shown.
    shown = inputs.rows(lambda x, axis: torch.cat([x.narrow(axis, 0, 1)] * 2, axis))
    spans = iter(inputs.spans)
    shown = shown.map(lambda x: _doubled(x, next(spans)))
    batch = Dim("batch", min=1)
    shapes = torch.export.ShapesCollection()  # type: ignore[no-untyped-call]
    named: dict[str, Any] = {}
    for place, (x, axis, free) in enumerate(zip(shown, shown.axes, shown.spans, strict=True)):
        sizes = {at: _dimension(span, f"{place}_{at}", named) for at, span in free.items()}
        if axis is not None:
            sizes[axis] = batch
        if sizes:
            shapes[x] = sizes
    kwargs = dict(shown.kwargs)
    wanted = shapes.dynamic_shapes(model, shown.args, kwargs)  # type: ignore[no-untyped-call]
    return torch.export.export(model, shown.args, kwargs, dynamic_shapes=wanted)


def _dimension(span: Span, place: str, named: dict[str, Any]) -> Any:
    """The dimension as torch takes it. Multiples have names there: one for all that are
    `tied`."""
    if span.multiple == 1:
        return Dim.AUTO(min=span.low, max=span.high)
    name, multiple = span.tied or place, span.multiple
    if name not in named:
        high = None if span.high is None else span.high // multiple
        named[name] = Dim(f"size_{name}", min=-(-span.low // multiple), max=high)
    return multiple * named[name]


def _doubled(x: Tensor, free: Mapping[int, Span]) -> Tensor:
    for axis in free:
        x = torch.cat([x, x], axis) if x.shape[axis] == 1 else x
    return x


def moved(program: ExportedProgram, device: str) -> ExportedProgram:
    """`program` on `device`, sizes and constants that it makes itself included. Changes it."""
    tensors = [*program.state_dict.values(), *program.constants.values()]
    wanted = torch.device(device).type
    if all(x.device.type == wanted for x in tensors if isinstance(x, Tensor)):
        return program
    from torch.export.passes import move_to_device_pass  # imports torch's compiler

    with without_warnings():
        return move_to_device_pass(program, device)


@contextmanager
def without_warnings() -> Iterator[None]:
    """torch copies its own tree specifications through a class that it warns of.

    Before 2.13 it also warns of the memory that it reads a program's weights into.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*LeafSpec.*", FutureWarning)
        warnings.filterwarnings("ignore", "The given buffer is not writable", UserWarning)
        yield


def module_of(program: ExportedProgram) -> GraphModule:
    """The program as a callable graph with its parameters under their own names.

    It leaves its inputs alone, also where the model writes into them (`functional.py`).
    """
    with without_warnings():
        module = program.module(check_guards=False)
    assert isinstance(module, GraphModule)
    return canonicalize(functional(program, module))


def capture(model: nn.Module, inputs: AnyInputs) -> GraphModule:
    """`model` as an editable graph module in eval mode. The model itself is not changed."""
    return module_of(export_program(model, inputs))


def clone(module: GraphModule) -> GraphModule:
    """A deep copy whose weights and graph can be edited without touching `module`."""
    with without_warnings():
        return copy.deepcopy(module)


def has_dynamic_batch(module: GraphModule, inputs: Inputs | None = None) -> bool:
    """True if the graph takes inputs like these, which say where the batch is, at any number of
    examples; along the first axis of each where none are given."""
    places = [n for n in module.graph.nodes if n.op == "placeholder"]
    first: tuple[int | None, ...] = (0,) * len(places)
    axes = inputs.by_place([n.name for n in places]).axes if inputs is not None else first
    for node, axis in zip(places, axes, strict=False):
        value = node.meta.get("val")
        shape = value.shape if isinstance(value, Tensor) else ()
        if axis is not None and axis < len(shape) and not isinstance(shape[axis], int):
            return True
    return False


def tensor_at(module: nn.Module, name: str) -> Tensor:
    """The parameter or buffer called `name` (dotted)."""
    owner, _, leaf = name.rpartition(".")
    value = getattr(module.get_submodule(owner), leaf)
    assert isinstance(value, Tensor)
    return value


def replace_tensor(module: GraphModule, name: str, value: torch.Tensor) -> None:
    """Put a new tensor in place, under every name the old one had (tied weights stay tied)."""
    old = tensor_at(module, name)
    is_parameter = isinstance(old, nn.Parameter)
    new = nn.Parameter(value, requires_grad=old.requires_grad) if is_parameter else value
    for owner in module.modules():
        for table in (owner._parameters, owner._buffers):
            for key, current in list(table.items()):
                if current is old:
                    table[key] = new  # type: ignore[assignment]


def node_named(module: GraphModule, name: str) -> Node | None:
    return next((n for n in module.graph.nodes if n.name == name), None)
