"""State: the tensors of a module that a call writes, and keeping them as they were."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from operator import attrgetter

import torch
from torch import Tensor, nn
from torch.fx import GraphModule

from .mutation import Aliases, written


def written_buffers(module: GraphModule) -> tuple[str, ...]:
    """Dotted names of the buffers and parameters that a call of `module` writes into."""
    targets = {value: node for node in module.graph.nodes for value in written(node)}
    if not targets:
        return ()
    aliases = Aliases(module)
    attributes = {m: None for value in targets for m in aliases.of(value) if m.op == "get_attr"}
    names = [str(n.target) for n in module.graph.nodes if n in attributes]
    return tuple(n for n in dict.fromkeys(names) if isinstance(attrgetter(n)(module), Tensor))


@contextmanager
def preserved_state(module: nn.Module) -> Iterator[None]:
    """Whatever is called inside, afterwards `module` holds the tensors and values it had before.

    Of a graph that is what a call writes; of another module all buffers, since nobody knows. Values
    are put back in place. Packed weights (other layouts than strided) are constants and left out.
    """
    if isinstance(module, GraphModule):
        names = list(written_buffers(module))
    else:
        names = [name for name, _ in module.named_buffers(remove_duplicate=False)]
    saved = [(name, tensor, tensor.detach().clone()) for name, tensor in _dense(module, names)]
    try:
        yield
    finally:
        # Tensors that were made in inference mode can be written there alone, others everywhere.
        with torch.inference_mode():
            for name, tensor, value in saved:
                _put(module, name, tensor)
                tensor.copy_(value)


def _dense(module: nn.Module, names: list[str]) -> Iterator[tuple[str, Tensor]]:
    for name in names:
        tensor = attrgetter(name)(module)
        if isinstance(tensor, Tensor) and tensor.layout is torch.strided:
            yield name, tensor


def _put(module: nn.Module, name: str, tensor: Tensor) -> None:
    """A module may have put another tensor in place of the one it held (`self.n = self.n + 1`)."""
    owner, _, leaf = name.rpartition(".")
    holder = module.get_submodule(owner)
    table = holder._parameters if leaf in holder._parameters else holder._buffers
    if table.get(leaf, tensor) is not tensor:
        table[leaf] = tensor  # type: ignore[assignment]
