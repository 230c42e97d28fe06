"""A captured graph as an ordinary function: arguments in, outputs out, operators called directly.

`torch.export` wraps a graph so that any nesting of arguments is flattened and outputs are rebuilt
from a tree specification: 0.05-0.2 ms a call, more than a whole small net takes. A call through
`torch.ops` costs 1-4 us more than the same operator's own Python binding, and a weight that is
looked up through modules 1-3 us: a tenth of a small net's time in all.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from operator import attrgetter
from typing import Any

import torch
from torch import Tensor
from torch._ops import OpOverload
from torch.fx import GraphModule
from torch.fx.graph import CodeGen, _PyTreeCodeGen
from torch.utils import _pytree as pytree

from ..mutation import hazards

# Operators whose Python binding takes the schema's arguments in the schema's order.
_FUNCTIONS = (
    "add", "addmm", "avg_pool1d", "batch_norm", "bmm", "cat", "chunk", "clamp", "conv1d", "conv2d",
    "conv3d", "div", "embedding", "exp", "flatten", "group_norm", "layer_norm", "matmul",
    "max_pool1d", "max_pool2d", "mean", "mul", "neg", "permute", "pow", "relu", "relu_", "reshape",
    "rsqrt", "select", "sigmoid", "softmax", "split_with_sizes", "sqrt", "squeeze", "stack", "sub",
    "sum", "tanh", "transpose", "unsqueeze", "where",
)  # fmt: skip
_NEURAL = (
    "adaptive_avg_pool2d", "avg_pool2d", "gelu", "hardsigmoid", "hardswish", "hardtanh",
    "hardtanh_", "leaky_relu", "linear", "pad", "relu6", "scaled_dot_product_attention", "silu",
    "upsample_nearest2d",
)  # fmt: skip
LOOKUP = re.compile(r"(?<=^    )(\w+) = \S*self\b[^\n]*$", re.MULTILINE)
_METHODS = ("add_", "contiguous", "expand", "mul_", "view")


def without_pytree(module: GraphModule) -> GraphModule:
    """Give `module`, in place, a plain signature and plain calls; outputs keep their structure.

    For running only: what reads operators off a graph does not know these spellings. Nested
    arguments keep `torch.export`'s wrapping.
    """
    graph = module.graph
    # Bindings have no schema: what a call writes must be known some other way.
    legible = not hazards(module)
    for node in graph.nodes:
        binding = _binding(node.target) if legible and node.op == "call_function" else None
        if binding is not None:
            node.target = binding
    if isinstance(graph._codegen, _PyTreeCodeGen):
        _unwrap(graph, graph._codegen)
    module.recompile()
    return module


def holding(module: GraphModule) -> GraphModule:
    """`module`, in place, with its parameters and buffers as globals of its function.

    For lowered graphs: their weights are laid out for this device, and nobody puts others in place.
    """
    named = {n.name: attrgetter(str(n.target)) for n in module.graph.nodes if n.op == "get_attr"}
    tensors = {name: get(module) for name, get in named.items() if isinstance(get(module), Tensor)}
    code = module.graph.python_code("self")
    names = {**code.globals, **{f"_held_{name}": tensor for name, tensor in tensors.items()}}
    source = LOOKUP.sub(lambda m: f"{m[1]} = _held_{m[1]}" if m[1] in tensors else m[0], code.src)
    exec(compile(source, "<graph>", "exec"), names)
    kind: Any = type(module)  # torch.fx makes a class for each graph
    kind.forward, kind._apply, kind.load_state_dict = names["forward"], _apply, _load
    return module


def _apply(self: Any, *arguments: Any, **options: Any) -> Any:
    """`.to()` and the like put other tensors in place of buffers."""
    torch.nn.Module._apply(self, *arguments, **options)  # type: ignore[no-untyped-call]
    return holding(self)


def _load(self: Any, *arguments: Any, **options: Any) -> Any:
    """With `assign` other tensors come in place of all."""
    result = torch.nn.Module.load_state_dict(self, *arguments, **options)
    holding(self)
    return result


def _unwrap(graph: torch.fx.Graph, wrapping: _PyTreeCodeGen) -> None:
    info = wrapping.pytree_info
    inputs = [n for n in graph.nodes if n.op == "placeholder"]
    if len(info.orig_args) != len(inputs) or info.in_spec.num_leaves != len(inputs):
        return
    for node, name in zip(inputs, info.orig_args, strict=True):
        node.target = name
    output = graph.output_node()
    flat = output.args[0]
    leaves = list(flat) if isinstance(flat, (list, tuple)) else [flat]
    if info.out_spec is not None:
        output.args = (pytree.tree_unflatten(leaves, info.out_spec),)
    graph.set_codegen(CodeGen())


def _binding(target: object) -> Callable[..., object] | None:
    if not isinstance(target, OpOverload) or target.namespace != "aten":
        return None
    name = target._schema.name.removeprefix("aten::")
    holders = ((_FUNCTIONS, torch), (_NEURAL, torch._C._nn), (_METHODS, Tensor))
    return next((getattr(h, name, None) for names, h in holders if name in names), None)
