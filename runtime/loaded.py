"""The module that `modelspeed.load` returns: one like any other, whatever it runs on inside.

Packed weights and compiled code can't be copied, pickled or converted. The graph they were made
from can: its weights are what this module holds and shows, and after anything that changes them
they are packed again. Calls go straight to what runs; nothing stands in between.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from types import MethodType
from typing import TYPE_CHECKING, Any, NoReturn, SupportsIndex

import torch
from torch import Tensor, nn
from torch.fx import GraphModule

from ..backends.registry import PLAIN, first_ready
from ..checkpoints.blueprint import Blueprint, blueprint_from
from ..core.errors import UsageError, text_line
from ..core.model_io import Inputs
from ..core.naming import outside
from ..graph.capture import without_warnings
from ..graph.lowering.live import function_on_tables, put, tensors_of
from ..profiling.clocks import POOL, pool_of
from .size_guard import SizeGuard

if TYPE_CHECKING:
    from typing_extensions import Self

KEPT = "_modelspeed"
TRAINS = "`modelspeed.load(folder, model=...)` puts its weights on your own class, which trains"
WEIGHTS = (
    "the weights of a loaded module are packed for this machine's kernels and can't be replaced "
    'one by one; `modelspeed.load(folder, runtime="plain")` takes others on every call, and '
    "`load_state_dict` packs new ones."
)


@dataclass(frozen=True)
class Origin:
    """The parts that a loaded module is made from, and made from again if its weights change."""

    blueprint: Blueprint
    inputs: Inputs
    runtime: str
    package: bytes | None = None


@dataclass(frozen=True)
class Kept:
    origin: Origin
    module: GraphModule  # the graph with the weights that are shown
    runner: nn.Module  # what runs


class Fixed(dict[str, object]):
    """Tensors that what runs was made from."""

    def __setitem__(self, name: str, value: object) -> NoReturn:
        raise UsageError(WEIGHTS)


class Part(nn.Module):
    """Holds weights of a loaded module under the name that the user's module had."""

    def _apply(self, *_: object, **__: object) -> NoReturn:
        raise UsageError(
            "one part of a loaded module can't be moved or converted; do so with the whole module."
        )


class Loaded(nn.Module):
    """`runner` runs; the weights are those of `module`, the graph it was made from."""

    def __init__(self, origin: Origin, module: GraphModule, runner: nn.Module) -> None:
        super().__init__()
        self._become(origin, module, runner)
        super().train(False)

    def _become(self, origin: Origin, module: GraphModule, runner: nn.Module) -> None:
        plain, tensors = origin.runtime == PLAIN, tensors_of(module)
        if not plain:  # what a call writes into is what is shown
            live = dict(runner.named_buffers())
            put(module, {n: t for n, t in live.items() if n in tensors and _alike(t, tensors[n])})
        self.__dict__.update(_modules={}, _parameters={}, _buffers={})
        for name in tensors:
            _place(self, module, name, nn.Module if plain else Part)
        if plain:
            run, runner = function_on_tables(runner, {n: outside(n) for n in tensors}), self
            forward: Any = MethodType(run, self)
        else:
            forward = runner.forward
        if origin.inputs.varies:
            forward = SizeGuard(origin.inputs, _parameters_of(module)).over(forward)
        if not plain:
            # Not for the compiler to trace into: it can't see packed weights.
            getattr(forward, "__func__", forward)._torchdynamo_disable = True
            _fix(self)
        kept = Kept(origin, module, runner)
        self.__dict__.update({KEPT: kept, "forward": forward, POOL: pool_of(runner)})

    def _again(self, origin: Origin, tensors: Mapping[str, Tensor]) -> None:
        with without_warnings():
            module = origin.blueprint.module()
        put(module, {n: _as(tensors_of(module)[n], t) for n, t in tensors.items()})
        said: list[str] = []
        name, runner = first_ready(module, origin.inputs, (origin.runtime,), said.append)
        self._become(replace(origin, runtime=name), module, runner)

    def train(self, mode: bool = True) -> Self:
        if mode:
            raise UsageError(f"a loaded module is for inference and can't be trained; {TRAINS}.")
        return super().train(False)

    def requires_grad_(self, requires_grad: bool = True) -> Self:
        if requires_grad and _kept(self).origin.runtime != PLAIN:
            raise UsageError(f"a loaded module has no gradients for its weights; {TRAINS}.")
        return super().requires_grad_(requires_grad)

    def load_state_dict(
        self, state_dict: Mapping[str, object], strict: bool = True, assign: bool = False
    ) -> Any:
        """As of every module; the new weights are packed again. They are copied in any case."""
        keys = super().load_state_dict(state_dict, strict)
        kept = _kept(self)
        if kept.origin.runtime != PLAIN:
            self._again(kept.origin, tensors_of(kept.module))
        return keys

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        kept = _kept(self)
        before = tensors_of(kept.module)
        try:
            with torch.no_grad():
                after = _converted(before, fn)
                if all(after[name] is before[name] for name in before):
                    return self
                inputs = kept.origin.inputs.map(fn)
            blueprint = kept.origin.blueprint.on(str(inputs[0].device))
            origin = replace(kept.origin, blueprint=blueprint, inputs=inputs, package=None)
            self._again(origin, after)
        except Exception as error:
            first = text_line(error)
            raise UsageError(
                "this variant can't be moved or converted so, and stays as it was; its number "
                f"format is part of it, and `modelspeed.load` takes a `device`: {first}."
            ) from error
        return self

    def __deepcopy__(self, memo: dict[int, object]) -> Loaded:
        kept = _kept(self)
        tensors = copy.deepcopy(tensors_of(kept.module), memo)
        copied = object.__new__(Loaded)
        memo[id(self)] = copied
        nn.Module.__init__(copied)
        copied._again(kept.origin, tensors)
        nn.Module.train(copied, False)
        return copied

    def __reduce_ex__(self, _protocol: SupportsIndex) -> tuple[object, ...]:
        kept = _kept(self)
        weights = {n: (t.detach(), t.requires_grad) for n, t in tensors_of(kept.module).items()}
        origin = kept.origin
        given = origin.inputs
        inputs = given.args, dict(given.kwargs), given.batch_axes, given.varies
        return _unpickled, (
            origin.blueprint.packed(),
            weights,
            inputs,
            origin.runtime,
            origin.package,
        )

    def extra_repr(self) -> str:
        return f"runs as `{_kept(self).origin.runtime}`"


def running(module: nn.Module) -> nn.Module:
    """The prepared module that a loaded module calls."""
    return _kept(module).runner


def _kept(module: nn.Module) -> Kept:
    kept: Kept = module.__dict__[KEPT]
    return kept


def _unpickled(
    blueprint: tuple[bytes, str],
    weights: dict[str, tuple[Tensor, bool]],
    inputs: tuple[Any, ...],
    runtime: str,
    package: bytes | None,
) -> Loaded:
    loaded = object.__new__(Loaded)
    nn.Module.__init__(loaded)
    tensors = {name: tensor.requires_grad_(grad) for name, (tensor, grad) in weights.items()}
    loaded._again(Origin(blueprint_from(*blueprint), Inputs(*inputs), runtime, package), tensors)
    nn.Module.train(loaded, False)
    return loaded


def _converted(tensors: Mapping[str, Tensor], fn: Callable[[Tensor], Tensor]) -> dict[str, Tensor]:
    """Tied ones stay one."""
    once = {id(t): fn(t) for t in tensors.values()}
    return {name: once[id(t)] for name, t in tensors.items()}


def _parameters_of(module: GraphModule) -> list[str]:
    return [node.name for node in module.graph.nodes if node.op == "placeholder"]


def _alike(a: Tensor, b: Tensor) -> bool:
    return a.dtype == b.dtype and a.shape == b.shape and torch.equal(a, b)


def _as(old: Tensor, new: Tensor) -> Tensor:
    if not isinstance(old, nn.Parameter) or isinstance(new, nn.Parameter):
        return new
    return nn.Parameter(new.detach(), requires_grad=old.requires_grad)


def _place(tree: nn.Module, module: nn.Module, name: str, kind: type[nn.Module]) -> None:
    """Show the tensor `name` of `module` in `tree`."""
    owner, _, inner = name.rpartition(".")
    source, (*path, leaf) = module.get_submodule(owner), outside(name).split(".")
    for part in path:
        if part not in tree._modules:
            tree._modules[part] = kind()
        tree = tree._modules[part]  # type: ignore[assignment]
    if inner in source._parameters:
        tree._parameters[leaf] = source._parameters[inner]
    else:
        tree._buffers[leaf] = source._buffers[inner]
        if inner in source._non_persistent_buffers_set:
            tree._non_persistent_buffers_set.add(leaf)


def _fix(tree: nn.Module) -> None:
    for part in tree.modules():
        part.__dict__["_parameters"] = Fixed(part._parameters)
        part.__dict__["_buffers"] = Fixed(part._buffers)
