"""A copy of a user's module, whatever its class keeps beside its parameters."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from ...core.errors import EditError, text_line


def copied(model: nn.Module) -> nn.Module:
    """A deep copy; what can't be copied (locks, files, handles) is shared with `model`.

    Raises EditError where the class itself can't be copied.
    """
    try:
        with _Detaching():
            return copy.deepcopy(model)
    except Exception:
        pass  # one of its attributes can't be copied: which one is found out, at some cost
    try:
        with _Detaching():
            return copy.deepcopy(model, _shared(model))
    except Exception as error:
        text = text_line(error)
        raise EditError(f"`{type(model).__name__}` can't be copied: {text}") from error


class _Detaching(TorchFunctionMode):
    """Tensors that a forward computed and left on a module are copied as plain values.

    torch.nn.utils.prune, weight_norm and caches leave such, and torch refuses to copy them.
    """

    def __torch_function__(
        self,
        func: Callable[..., object],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, object] | None = None,
    ) -> object:
        if func is Tensor.__deepcopy__ and not args[0].is_leaf:
            tensor, memo = args
            if id(tensor) not in memo:
                memo[id(tensor)] = tensor.detach().clone()
            return memo[id(tensor)]
        return func(*args, **(kwargs or {}))


def _shared(model: nn.Module) -> dict[int, object]:
    """Attributes that can't be copied, as deepcopy's memo: they stay the model's own."""
    modules = {id(module): module for module in model.modules()}
    memo: dict[int, object] = {}
    for module in modules.values():
        for value in vars(module).values():
            if value is module._modules:
                continue
            try:
                with _Detaching():
                    copy.deepcopy(value, dict(modules))
            except Exception:
                memo[id(value)] = value
    return memo
