"""The part of a model that fails on given inputs, and how it fails."""

from __future__ import annotations

import torch
from torch import nn
from torch.fx import GraphModule, Node

from ..core.errors import text_line
from ..core.model_io import Inputs
from .interpreter import Recorder


def failure(model: nn.Module, inputs: Inputs) -> str:
    """The reason why it can't be called, naming the module that failed; empty if it can.

    Of a graph, whose operators are not modules, the one that each came from.
    """
    if isinstance(model, GraphModule):
        return _failing_node(model, inputs)
    open_calls: list[str] = []
    handles = []
    for path, module in model.named_modules():

        def enter(_m: nn.Module, _a: object, path: str = path) -> None:
            open_calls.append(path)

        def leave(_m: nn.Module, _a: object, _o: object) -> None:
            open_calls.pop()

        handles += [module.register_forward_pre_hook(enter), module.register_forward_hook(leave)]
    try:
        with torch.no_grad():
            inputs.call(model)
    except Exception as error:
        path = open_calls[-1] if open_calls else ""
        return f"`{path or 'forward'}` ({type(model.get_submodule(path)).__name__}) {_how(error)}"
    finally:
        for handle in handles:
            handle.remove()
    return ""


def _failing_node(module: GraphModule, inputs: Inputs) -> str:
    watched = _Last(module)
    try:
        with torch.no_grad():
            watched.of(inputs)
    except Exception as error:
        return f"`{owner_of(watched.last) or watched.last.name}` {_how(error)}"
    return ""


class _Last(Recorder):
    def run_node(self, n: Node) -> object:
        self.last = n
        return super().run_node(n)


def _how(error: Exception) -> str:
    return f"fails: {text_line(error)}"


def stack_of(node: Node) -> tuple[str, ...]:
    """Paths of the modules whose forward made the node, the outermost first."""
    entries = (node.meta.get("nn_module_stack") or {}).values()
    return tuple(str(path) for path, _ in entries) or ("",)


def owner_of(node: Node | None) -> str:
    return stack_of(node)[-1] if node is not None else "the model"
