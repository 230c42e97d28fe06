"""A module that is fast for the shapes it was made for, and runs as usual for all others."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Any

from torch import Tensor, nn
from torch.fx import GraphModule
from torch.utils import _pytree as pytree

from ..core.model_io import Inputs

Fast = Callable[..., Sequence[Any]]  # a graph's inputs by place -> its outputs, flat
Kinds = tuple[Hashable, ...]


class ShapeGuarded(nn.Module):
    """A module that calls what `pick` returns for its inputs, or `usual` if that is None.

    `pick` gets the inputs flat, in the order of `module`'s placeholders.
    """

    def __init__(
        self, usual: nn.Module, module: GraphModule, pick: Callable[[Sequence[Any]], Fast | None]
    ) -> None:
        super().__init__()
        self.usual, self.pick = usual, pick
        self._names = names_of(module)
        spec = getattr(getattr(module.graph._codegen, "pytree_info", None), "out_spec", None)
        self._spec = None if spec is None or spec.is_leaf() else spec

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        flat: Sequence[Any] = Inputs(args, kwargs).in_order(self._names) if kwargs else args
        fast = self.pick(flat)
        if fast is None:
            return self.usual(*args, **kwargs)
        outputs = fast(*flat)
        return outputs[0] if self._spec is None else pytree.tree_unflatten(outputs, self._spec)


def for_inputs(usual: nn.Module, module: GraphModule, inputs: Inputs, fast: Fast) -> ShapeGuarded:
    """`fast` for inputs like `inputs` alone, laid out contiguously, as it was compiled for."""
    made_for = kinds(inputs.in_order(names_of(module)))

    def laid_out(*flat: Any) -> Sequence[Any]:
        return fast(*(x.contiguous() if isinstance(x, Tensor) else x for x in flat))

    return ShapeGuarded(usual, module, lambda flat: laid_out if kinds(flat) == made_for else None)


def kinds(flat: Sequence[Any]) -> Kinds:
    """Shape, dtype and device of each input: compiled code and recorded memory fit only these."""
    return tuple((x.shape, x.dtype, x.device) if isinstance(x, Tensor) else None for x in flat)


def names_of(module: GraphModule) -> list[str]:
    return [n.name for n in module.graph.nodes if n.op == "placeholder"]
