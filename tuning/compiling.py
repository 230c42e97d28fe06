"""torch.compile's back end with frozen weights, straight on the captured graph.

Compiled is what the tuned inputs' shapes need; other shapes run as the graph does. Without dynamo
in front there are no guards to pass on every call, and nothing recompiles behind the user's back.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.fx import GraphModule
from torch.fx.graph import CodeGen
from torch.utils import _pytree as pytree

from ..core.calling import Inputs
from ..core.errors import MeasureError, UsageError
from ..graph.lowering import folded_copy

INDUCTOR = "inductor"


def why_not(device: str) -> str | None:
    """What this machine lacks to compile for `device`, None where nothing."""
    if torch.device(device).type == "cuda":
        from torch.utils._triton import has_triton

        return None if has_triton() else "needs triton for GPUs, and it isn't installed"
    from torch._inductor.cpp_builder import get_cpp_compiler

    try:
        get_cpp_compiler()
    except RuntimeError:
        return "needs a C++ compiler, and torch finds none (it looks for `CXX`, else `g++`)"
    return None


def require(
    device: str, asked: str = "`--runtime inductor`", instead: str = "`--runtime lowered`"
) -> None:
    """Raises UsageError where nothing can be compiled here."""
    if reason := why_not(device):
        raise UsageError(
            f"{asked} {reason}; install one, such as the package `g++`, or use {instead}."
        )


class Compiled(nn.Module):
    """`fast` for inputs like `inputs`, `usual` for all others."""

    def __init__(
        self, usual: nn.Module, fast: Callable[..., Any], module: GraphModule, inputs: Inputs
    ) -> None:
        super().__init__()
        self.usual, self.fast = usual, fast
        self._names = [n.name for n in module.graph.nodes if n.op == "placeholder"]
        self._kinds = [_kind(x) for x in inputs.in_order(self._names)]
        spec = getattr(getattr(module.graph._codegen, "pytree_info", None), "out_spec", None)
        self._spec = None if spec is None or spec.is_leaf() else spec

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        flat: Sequence[Any] = Inputs(args, kwargs).in_order(self._names) if kwargs else args
        if [_kind(x) for x in flat] != self._kinds:
            return self.usual(*args, **kwargs)
        # Compiled code insists on the strides that it was made for.
        outputs = self.fast(*(x.contiguous() if isinstance(x, Tensor) else x for x in flat))
        return outputs[0] if self._spec is None else pytree.tree_unflatten(outputs, self._spec)


def _kind(value: Any) -> object:
    return (value.shape, value.dtype, value.device) if isinstance(value, Tensor) else None


def compiled(module: GraphModule, usual: nn.Module, inputs: Inputs) -> Compiled:
    """`module` compiled for `inputs`, in seconds to minutes; `usual` is how other shapes run.

    Raises MeasureError with the compiler's first line where it fails.
    """
    import torch._inductor.config as settings
    from torch._inductor.compile_fx import compile_fx

    flat_graph = folded_copy(module)
    flat_graph.graph.set_codegen(CodeGen())
    flat_graph.recompile()
    names = [n.name for n in flat_graph.graph.nodes if n.op == "placeholder"]
    given = [x.contiguous() for x in inputs.in_order(names)]
    try:
        # Frozen: weights are constants, so that they can be packed for the kernels.
        with settings.patch(freezing=True), torch.no_grad():
            fast = cast(Callable[..., Any], compile_fx(flat_graph, given))
            fast(*given)
    except Exception as error:
        first = (str(error).strip() or repr(error)).splitlines()[0]
        raise MeasureError(f"torch.compile fails on this model: {first}") from error
    return Compiled(usual, fast, module, inputs)
