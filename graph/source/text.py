"""A captured graph as a Python file of plain PyTorch: a class, its forward, a `load()`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor
from torch.fx import GraphModule, Node
from torch.fx.graph import _PyTreeCodeGen
from torch.utils import _pytree as pytree

from ...core.errors import EditError
from ...core.naming import outside
from ..capture import tensor_at
from .forward import INDENT, Forward, needed
from .grammar import Grammar
from .layers import COUNTER, modules_of
from .tree import GROUP, init_lines, reached, tree, uses_groups
from .variables import parameter_name

HEAD = '''"""{title}

Plain PyTorch: it needs only torch and safetensors. Inputs:
{inputs}
"""

from __future__ import annotations

from pathlib import Path

import torch
{functional}from safetensors.torch import load_file
from torch import nn

WEIGHTS = Path(__file__).with_name("{weights}")
'''
FUNCTIONAL = "import torch.nn.functional as F\n"
T = TypeVar("T")
LOAD = '''def load(path: Path | str = WEIGHTS) -> Model:
    """The model with its weights, in evaluation mode."""
    model = Model()
    model.load_state_dict(load_file(path))
    return model.eval()
'''


@dataclass(frozen=True)
class SourceText:
    """The file's text, and the tensors that its class's state dict holds, by name."""

    text: str
    tensors: dict[str, Tensor]


def source_of(module: GraphModule, title: str, weights: str = "model.safetensors") -> SourceText:
    """`module` as a file that gives the same outputs; `load()` in it reads `weights` beside it.

    Names of parameters and buffers stay; a tensor with several has the first. Raises EditError
    where the graph holds what can't be written, or has nested inputs. `module` stays as it is.
    """
    nodes = needed(list(module.graph.nodes))
    tensors = _tensors(module, nodes)
    modules, layers = modules_of(nodes, tensors)
    root = tree(_outside(_in_order(modules, nodes)), _outside(tensors))
    inputs, outputs = _signature(module, nodes)
    body = Forward(nodes, layers, root).lines(inputs, outputs)
    init = [f"{INDENT}super().__init__()", *init_lines(root, INDENT)]
    taken = ", ".join(f"{name}: torch.Tensor" for name in inputs.values())
    described = "\n".join(f"- {name}: {_described(node)}" for node, name in inputs.items())
    used = FUNCTIONAL if any(" F." in line or "(F." in line for line in body) else ""
    gives = " -> torch.Tensor" if isinstance(outputs, Node) else ""
    groups = [GROUP] if uses_groups(root) else []
    model = "\n".join([
        "class Model(nn.Module):",
        "    def __init__(self) -> None:",
        *init, "",
        f"    def forward(self, {taken}){gives}:", *body,
    ]) + "\n"  # fmt: skip
    head = HEAD.format(title=title, inputs=described, functional=used, weights=weights)
    text = "\n\n".join([head, *groups, model, LOAD])
    frame = HEAD.format(title="", inputs="", functional=used, weights=weights)
    empty = "class Model(nn.Module):\n    pass\n"
    reach = [outside(name) for name in (*modules, *tensors) if _is_reached(name, modules)]
    Grammar.of(nodes, ["self.training", *(reached(root, name) for name in reach)]).check(
        text, "\n\n".join([frame, *groups, empty, LOAD])
    )
    return SourceText(text, _outside(tensors | _counters(modules, module)))


def _outside(named: Mapping[str, T]) -> dict[str, T]:
    """Under the user's names: a class may hold any. Raises EditError for two that are one."""
    renamed: dict[str, T] = {}
    for name, value in named.items():
        if (own := outside(name)) in renamed:
            raise EditError(f"the graph holds `{own}` under two names")
        renamed[own] = value
    return renamed


def _is_reached(name: str, modules: Mapping[str, str]) -> bool:
    """Tensors of a module are its own business."""
    return name.rpartition(".")[0] not in modules


def _tensors(module: GraphModule, nodes: list[Node]) -> dict[str, Tensor]:
    names = dict.fromkeys(str(n.target) for n in nodes if n.op == "get_attr" and n.users)
    try:
        return {name: tensor_at(module, name) for name in names}
    except AssertionError as error:
        raise EditError("the graph holds a part that is a graph of its own") from error


def _in_order(modules: Mapping[str, str], nodes: list[Node]) -> dict[str, str]:
    owners = (str(n.target).rpartition(".")[0] for n in nodes if n.op == "get_attr")
    return {name: modules[name] for name in dict.fromkeys(owners) if name in modules}


def _counters(modules: Mapping[str, str], module: GraphModule) -> dict[str, Tensor]:
    norms = [name for name, build in modules.items() if build.startswith("nn.BatchNorm")]
    return {f"{name}.{COUNTER}": torch.tensor(0) for name in norms}


def _signature(module: GraphModule, nodes: list[Node]) -> tuple[dict[Node, str], object]:
    """Placeholders with their names, and the outputs in the structure the caller sees."""
    inputs = [n for n in nodes if n.op == "placeholder"]
    outputs = module.graph.output_node().args[0]
    codegen = module.graph._codegen
    if not isinstance(codegen, _PyTreeCodeGen):
        return {n: parameter_name(str(n.target)) for n in inputs}, outputs
    info = codegen.pytree_info
    if len(info.orig_args) != len(inputs) or info.in_spec.num_leaves != len(inputs):
        raise EditError("its inputs are nested, which a plain signature can't say")
    leaves = list(outputs) if isinstance(outputs, (list, tuple)) else [outputs]
    if info.out_spec is not None:
        outputs = pytree.tree_unflatten(leaves, info.out_spec)
    return {n: parameter_name(a) for n, a in zip(inputs, info.orig_args, strict=True)}, outputs


def _described(node: Node) -> str:
    value = node.meta.get("val")
    if not isinstance(value, Tensor):
        return "a tensor"
    sizes = [str(n) if isinstance(n, int) else "batch" for n in value.shape]
    return f"{str(value.dtype).removeprefix('torch.')} [{', '.join(sizes)}]"
