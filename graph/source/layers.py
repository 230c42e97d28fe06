"""Modules of torch.nn that tensors of a graph make up, and how they are built."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor
from torch.fx import Node

from .layout import Call, call_piece
from .literals import literal
from .spelling import operator_of
from .values import Arguments, arguments_of, single

# Which argument of the operator a module holds under which name.
_PLAIN = {"weight": "weight", "bias": "bias"}
_STATISTICS = {**_PLAIN, "running_mean": "running_mean", "running_var": "running_var"}
COUNTER = "num_batches_tracked"


@dataclass(frozen=True)
class SourceLayer:
    """`build` makes the module called `name`; it is called with `data` alone."""

    name: str
    build: str
    data: Node
    tensors: tuple[str, ...]


def layer_of(node: Node, tensors: Mapping[str, Tensor]) -> SourceLayer | None:
    """`node` as the call of a module, None where it is none by its operator, names or types."""
    kind = _KINDS.get(operator_of(node))
    if kind is None or str(node.target).endswith("_"):
        return None
    leaves, build, data = kind
    values = arguments_of(node)
    nodes = {leaf: values[name] for name, leaf in leaves.items() if values[name] is not None}
    if not nodes or not all(isinstance(n, Node) and n.op == "get_attr" for n in nodes.values()):
        return None
    names = {leaf: str(n.target) for leaf, n in nodes.items()}
    owners = {name.rpartition(".")[0] for name in names.values()}
    if any(not full.endswith(f".{leaf}") for leaf, full in names.items()) or len(owners) != 1:
        return None
    own = {leaf: tensors[full] for leaf, full in names.items()}
    if len({t.dtype for t in own.values()}) != 1:
        return None
    call = build(values, own)
    if call is None:
        return None
    (owner,) = owners
    return SourceLayer(owner, str(_typed(call, own)), values[data], tuple(sorted(names.values())))


def _typed(call: Call, own: Mapping[str, Tensor]) -> Call:
    dtype = str(next(iter(own.values())).dtype)
    extra = () if dtype == "torch.float32" else (f"dtype={dtype}",)
    return Call(call.head, (*call.items, *extra), call.close)


def _named(values: Arguments, defaults: Mapping[str, object]) -> list[str]:
    """Settings that are not the module's defaults, as keywords."""
    settings = {k: single(values[k]) for k in defaults}
    return [f"{k}={literal(v)}" for k, v in settings.items() if v != defaults[k] and v != []]


def _bias(own: Mapping[str, Tensor]) -> list[str]:
    return [] if "bias" in own else ["bias=False"]


def _convolution(spatial_dims: int, transposed: bool = False) -> Callable[..., Call | None]:
    kind = f"nn.ConvTranspose{spatial_dims}d" if transposed else f"nn.Conv{spatial_dims}d"
    defaults = {"stride": 1, "padding": 0} | ({"output_padding": 0} if transposed else {})
    defaults |= {"dilation": 1, "groups": 1}

    def build(values: Arguments, own: Mapping[str, Tensor]) -> Call | None:
        if "weight" not in own:
            return None
        first, second = own["weight"].shape[:2]
        groups = values["groups"]
        if type(groups) is not int:
            return None
        inputs, outputs = (first, second * groups) if transposed else (second * groups, first)
        kernel = single(tuple(own["weight"].shape[2:]))
        sizes = [literal(inputs), literal(outputs), literal(kernel)]
        return call_piece(kind, [*sizes, *_named(values, defaults), *_bias(own)])

    return build


def _linear(values: Arguments, own: Mapping[str, Tensor]) -> Call | None:
    if "weight" not in own or own["weight"].dim() != 2:
        return None
    outputs, inputs = own["weight"].shape
    return call_piece("nn.Linear", [str(inputs), str(outputs), *_bias(own)])


def _batch_norm(values: Arguments, own: Mapping[str, Tensor]) -> Call | None:
    shape = getattr(values["input"].meta.get("val"), "shape", None)
    spatial_dims = {2: 1, 3: 1, 4: 2, 5: 3}.get(len(shape)) if shape is not None else None
    both = {"running_mean", "running_var"} <= set(own)
    half_affine = ("weight" in own) != ("bias" in own)
    if values["training"] or spatial_dims is None or not both or half_affine:
        return None
    settings = _named(values, {"eps": 1e-5, "momentum": 0.1})
    affine = [] if "weight" in own else ["affine=False"]
    width = str(len(own["running_mean"]))
    return call_piece(f"nn.BatchNorm{spatial_dims}d", [width, *settings, *affine])


def _layer_norm(values: Arguments, own: Mapping[str, Tensor]) -> Call | None:
    shape = list(values["normalized_shape"])
    if "weight" not in own or list(own["weight"].shape) != shape:
        return None
    size = literal(single(shape) if len(shape) == 1 else shape)
    return call_piece("nn.LayerNorm", [size, *_named(values, {"eps": 1e-5}), *_bias(own)])


def _rms_norm(values: Arguments, own: Mapping[str, Tensor]) -> Call | None:
    shape = list(values["normalized_shape"])
    size = literal(single(shape) if len(shape) == 1 else shape)
    return call_piece("nn.RMSNorm", [size, *_named(values, {"eps": None})])


def _group_norm(values: Arguments, own: Mapping[str, Tensor]) -> Call | None:
    if set(own) != {"weight", "bias"}:
        return None
    sizes = [literal(values["num_groups"]), literal(len(own["weight"]))]
    return call_piece("nn.GroupNorm", [*sizes, *_named(values, {"eps": 1e-5})])


def _embedding(values: Arguments, own: Mapping[str, Tensor]) -> Call | None:
    if values["scale_grad_by_freq"] or values["sparse"]:
        return None
    rows, width = own["weight"].shape
    return call_piece("nn.Embedding", [str(rows), str(width), *_named(values, {"padding_idx": -1})])


def _prelu(values: Arguments, own: Mapping[str, Tensor]) -> Call | None:
    return call_piece("nn.PReLU", [] if len(own["weight"]) == 1 else [str(len(own["weight"]))])


_KINDS: dict[str, tuple[Mapping[str, str], Callable[..., Call | None], str]] = {
    "conv1d": (_PLAIN, _convolution(1), "input"),
    "conv2d": (_PLAIN, _convolution(2), "input"),
    "conv3d": (_PLAIN, _convolution(3), "input"),
    "conv_transpose1d": (_PLAIN, _convolution(1, True), "input"),
    "conv_transpose2d": (_PLAIN, _convolution(2, True), "input"),
    "conv_transpose3d": (_PLAIN, _convolution(3, True), "input"),
    "linear": (_PLAIN, _linear, "input"),
    "batch_norm": (_STATISTICS, _batch_norm, "input"),
    "layer_norm": (_PLAIN, _layer_norm, "input"),
    "rms_norm": ({"weight": "weight"}, _rms_norm, "input"),
    "group_norm": (_PLAIN, _group_norm, "input"),
    "embedding": ({"weight": "weight"}, _embedding, "indices"),
    "prelu": ({"weight": "weight"}, _prelu, "self"),
}


def modules_of(
    nodes: list[Node], tensors: Mapping[str, Tensor]
) -> tuple[dict[str, str], dict[Node, SourceLayer]]:
    """Module names with how each is built, and the nodes that call them.

    A name is a module only where every use of every tensor under it is such a call, all alike.
    """
    layers = {n: layer for n in nodes if (layer := layer_of(n, tensors)) is not None}
    builds: dict[str, set[tuple[str, tuple[str, ...]]]] = {}
    for layer in layers.values():
        builds.setdefault(layer.name, set()).add((layer.build, layer.tensors))
    whole = {name: next(iter(variants)) for name, variants in builds.items() if len(variants) == 1}
    for node in nodes:
        if node.op != "get_attr":
            continue
        for user in node.users:
            layer = layers.get(user)
            if layer is None or str(node.target) not in layer.tensors or layer.data is node:
                whole.pop(_owner(str(node.target), whole), None)
    for name in list(whole):
        inside = {t for t in tensors if t.startswith(f"{name}.")}
        if inside != set(whole[name][1]):
            del whole[name]
    return (
        {name: build for name, (build, _) in whole.items()},
        {node: layer for node, layer in layers.items() if layer.name in whole},
    )


def _owner(tensor: str, modules: Mapping[str, object]) -> str:
    parts = tensor.split(".")
    names = (".".join(parts[:n]) for n in range(len(parts) - 1, 0, -1))
    return next((n for n in names if n in modules), "")
