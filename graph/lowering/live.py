"""A graph's function on weights that lie in a module's own tables, under whatever names."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from operator import attrgetter

from torch import Tensor, nn
from torch.fx import GraphModule

from .direct_call import LOOKUP


def tensors_of(module: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers, tied ones under each of their names."""
    named = dict(module.named_parameters(remove_duplicate=False))
    return {**named, **dict(module.named_buffers(remove_duplicate=False))}


def put(module: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Put each tensor under the name that one of `module` has."""
    for name, tensor in tensors.items():
        owner, _, leaf = name.rpartition(".")
        tables = module.get_submodule(owner)
        table = tables._parameters if leaf in tables._parameters else tables._buffers
        table[leaf] = tensor  # type: ignore[assignment]


def function_on_tables(module: nn.Module, names: Mapping[str, str]) -> Callable[..., object]:
    """The graph's `forward`, which looks its tensors up in the tables of the module it is bound to.

    `names`: what each tensor is called there, by its name in `module`. Tables take any name, where
    an attribute must be spelled in Python and may be another thing's already.
    """
    assert isinstance(module, GraphModule)
    lookups: dict[str, str] = {}
    regions: dict[str, object] = {}
    for node in module.graph.nodes:
        if node.op != "get_attr":
            continue
        if str(node.target) in names:
            lookups[node.name] = _lookup(module, str(node.target), names[str(node.target)])
        else:  # a region of the graph
            regions[f"_held_{node.name}"] = attrgetter(str(node.target))(module)
            lookups[node.name] = f"_held_{node.name}"
    code = module.graph.python_code("self")
    scope = {**code.globals, **regions}
    source = LOOKUP.sub(
        lambda m: f"{m[1]} = {lookups[m[1]]}" if m[1] in lookups else m[0], code.src
    )
    exec(compile(source, "<graph>", "exec"), scope)
    forward: Callable[..., object] = scope["forward"]
    return forward


def _lookup(module: nn.Module, inner: str, name: str) -> str:
    owner, _, leaf = inner.rpartition(".")
    kind = "_parameters" if leaf in module.get_submodule(owner)._parameters else "_buffers"
    *path, last = name.split(".")
    return "self" + "".join(f"._modules[{part!r}]" for part in path) + f".{kind}[{last!r}]"
