"""ATen operators as they are written by hand: `F.relu(x)`, `x + y`, `x[:, 0]`, `x.mean(1)`.

torch makes most Python functions and methods from the same schemas as the operators, so names and
orders agree; listed here is what is written otherwise.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.fx import Node

from .layout import Call, Piece, call_piece, listed
from .literals import literal
from .values import Show, arguments_of, keywords, single

FALLBACK = "torch.ops.aten."
LAST = 2**63 - 1

INFIX = {
    "add": "+", "sub": "-", "mul": "*", "div": "/", "pow": "**", "matmul": "@", "bmm": "@",
    "mm": "@", "eq": "==", "ne": "!=", "lt": "<", "le": "<=", "gt": ">", "ge": ">=",
    "bitwise_and": "&", "bitwise_or": "|", "__and__": "&", "__or__": "|",
}  # fmt: skip
# Functions of torch.nn.functional whose arguments are the operator's; the rest is found by name.
NEURAL = set(
    """relu relu6 silu gelu elu celu selu leaky_relu hardtanh hardswish hardsigmoid mish softplus
    glu prelu linear conv1d conv2d conv3d conv_transpose1d conv_transpose2d conv_transpose3d
    max_pool1d max_pool2d max_pool3d avg_pool1d avg_pool2d avg_pool3d adaptive_avg_pool1d
    adaptive_avg_pool2d adaptive_avg_pool3d pad pixel_shuffle pixel_unshuffle channel_shuffle
    scaled_dot_product_attention layer_norm group_norm rms_norm""".split()
)
RENAMED = {
    "log_sigmoid": "F.logsigmoid", "im2col": "F.unfold", "col2im": "F.fold",
    "linalg_matrix_exp": "torch.matrix_exp", "native_channel_shuffle": "F.channel_shuffle",
    "zero": "torch.zeros_like",
}  # fmt: skip
# Sizes as separate arguments, as one writes them.
UNPACKED = {"view", "reshape", "permute", "expand", "repeat", "tile"}
# Their Python functions know no keywords.
BY_PLACE = {"lstm", "gru", "rnn_tanh", "rnn_relu"}
LEFT_OUT = {"pin_memory", "layout", "cudnn_enable", "cudnn_enabled"}
NAMESPACES = {"fft_": "torch.fft.", "linalg_": "torch.linalg.", "special_": "torch.special."}


def operator_of(node: Node) -> str:
    """The name of an ATen operator without its overload; nothing for other functions."""
    target = node.target
    known = isinstance(target, torch._ops.OpOverload) and target.namespace == "aten"
    return target._schema.name.removeprefix("aten::") if known else ""  # type: ignore[union-attr]


def spelled(node: Node, show: Show) -> Piece:
    """The call of an ATen operator as plain PyTorch; `FALLBACK` in front where there is none."""
    name = operator_of(node)
    if name in INFIX and len(node.args) == 2 and not node.kwargs:
        left, right = (_operand(show(a)) for a in node.args)
        # `x**2`, as formatters have it, where nothing else is in it.
        gap = "" if name == "pow" and re.fullmatch(r"-?[\w.]+", left + right) else " "
        return f"{left}{gap}{INFIX[name]}{gap}{right}"
    if special := SPECIAL.get(name):
        return special(node, show)
    function = _function(name)
    if function is not None:
        return call_piece(function, _arguments(node, show, sizes=function.startswith("F.")))
    if name.endswith("_") and name[:-1] in NEURAL:
        return call_piece(f"F.{name[:-1]}", [*_arguments(node, show, sizes=True), "inplace=True"])
    if hasattr(Tensor, name) and _takes_itself(node):
        return _method(node, show, name)
    if hasattr(torch, name) and not name.startswith("_"):
        return call_piece(f"torch.{name}", _arguments(node, show))
    named = keywords(node, show)
    overload = str(node.target).removeprefix("aten.")
    return call_piece(FALLBACK + overload, [*(show(a) for a in node.args), *named])


def heads_of(node: Node) -> set[str]:
    """All functions that `spelled` may call a node by; methods aside."""
    name = operator_of(node)
    overload = str(node.target).removeprefix("aten.")
    heads = {f"torch.{name}", FALLBACK + overload, *_SPECIAL_HEADS}
    if name.endswith("_") and name[:-1] in NEURAL:
        heads.add(f"F.{name[:-1]}")
    function = _function(name)
    return heads | ({function} if function else set())


def _operand(piece: Piece) -> str:
    text = str(piece)
    return f"({text})" if any(f" {sign} " in text for sign in "+-*/%") else text


def _function(name: str) -> str | None:
    if name in NEURAL and hasattr(F, name):
        return f"F.{name}"
    for prefix, holder in NAMESPACES.items():
        if name.startswith(prefix) and name not in RENAMED:
            return holder + name.removeprefix(prefix)
    return RENAMED.get(name)


def _takes_itself(node: Node) -> bool:
    first = node.target._schema.arguments[0]  # type: ignore[union-attr]
    return first.name == "self" and isinstance(node.args[0], Node)


def _method(node: Node, show: Show, name: str) -> Piece:
    rest = _arguments(node, show, first=1)
    if name in UNPACKED and len(rest) == 1 and isinstance(rest[0], Call):
        rest = list(rest[0].items)
    return call_piece(f"{show(node.args[0])}.{name}", rest)


def _arguments(node: Node, show: Show, first: int = 0, sizes: bool = False) -> list[Piece]:
    """Positional as far as nothing is left out, flags and what follows a gap by name."""
    values, pieces, gap = arguments_of(node), [], False
    name = operator_of(node)
    for argument in node.target._schema.arguments[first:]:  # type: ignore[union-attr]
        value = values[argument.name]
        default = argument.has_default_value() and value == argument.default_value
        if (default and name not in BY_PLACE) or argument.name in LEFT_OUT:
            gap = True
            continue
        if argument.name in ("dim", "dims") and isinstance(value, (list, tuple)) and value:
            piece: Piece = _dims(value, single=argument.N == 1)
        else:
            piece = show(single(value) if sizes and argument.name in SIZES else value)
        flag = isinstance(value, bool) and name not in BY_PLACE
        if gap or flag or argument.kwarg_only:
            piece = f"{argument.name}={piece}"
            gap = True
        pieces.append(piece)
    return pieces


def _dims(dims: Sequence[int], single: bool) -> str:
    return literal(dims[0] if single and len(dims) == 1 else tuple(dims))


SIZES = {"kernel_size", "stride", "padding", "dilation", "output_padding", "output_size"}


def _slice(node: Node, show: Show) -> Piece:
    v = arguments_of(node)
    start = "" if v["start"] in (None, 0) else show(v["start"])
    end = "" if v["end"] is None or v["end"] == LAST else show(v["end"])
    step = "" if v["step"] == 1 else f":{show(v['step'])}"
    return _at(node, show, f"{start}:{end}{step}")


def _select(node: Node, show: Show) -> Piece:
    return _at(node, show, str(show(arguments_of(node)["index"])))


def _at(node: Node, show: Show, place: str) -> str:
    v = arguments_of(node)
    dim = int(v["dim"])
    axes = [":"] * dim + [place] if dim >= 0 else ["...", place] + [":"] * (-dim - 1)
    return f"{show(v['self'])}[{', '.join(axes)}]"


def _index(node: Node, show: Show) -> Piece:
    v = arguments_of(node)
    indices = ", ".join(":" if i is None else str(show(i)) for i in v["indices"])
    return f"{show(v['self'])}[{indices}]"


def _attribute(text: str) -> Callable[[Node, Show], Piece]:
    return lambda node, show: f"{show(node.args[0])}{text}"


def _split(node: Node, show: Show) -> Piece:
    v = arguments_of(node)
    dim = [] if v["dim"] == 0 else [show(v["dim"])]
    return call_piece(f"{show(v['self'])}.split", [show(v["split_sizes"]), *dim])


def _dropout(function: str) -> Callable[[Node, Show], Piece]:
    return lambda node, show: call_piece(
        function, [show(node.args[0]), show(node.args[1]), "training=self.training"]
    )


def _feature_dropout(node: Node, show: Show) -> Piece:
    return call_piece(
        "torch.feature_dropout", [show(node.args[0]), show(node.args[1]), "self.training"]
    )


def _embedding(node: Node, show: Show) -> Piece:
    v = arguments_of(node)
    padding = [] if v["padding_idx"] == -1 else [show(v["padding_idx"])]
    return call_piece("F.embedding", [show(v["indices"]), show(v["weight"]), *padding])


def _norm(function: str, flag: str) -> Callable[[Node, Show], Piece]:
    def spell(node: Node, show: Show) -> Piece:
        v = arguments_of(node)
        order = ("input", "running_mean", "running_var", "weight", "bias")
        rest = [f"{name}={show(v[name])}" for name in (flag, "momentum", "eps")]
        return call_piece(function, [*(show(v[name]) for name in order), *rest])

    return spell


def _einsum(node: Node, show: Show) -> Piece:
    v = arguments_of(node)
    return call_piece("torch.einsum", [show(v["equation"]), *(show(t) for t in v["tensors"])])


def _resize(mode: str) -> Callable[[Node, Show], Piece]:
    def spell(node: Node, show: Show) -> Piece:
        v = arguments_of(node)
        if str(node.target).rpartition(".")[2] != "vec":
            items = [*(show(a) for a in node.args), *keywords(node, show)]
            return call_piece(FALLBACK + str(node.target).removeprefix("aten."), items)
        items = [show(v["input"])]
        if v["output_size"] is not None:
            items.append(f"size={show(v['output_size'])}")
        else:
            items.append(f"scale_factor={show(v['scale_factors'])}")
        aligned = v.get("align_corners")
        aligned_item = [] if aligned is None else [f"align_corners={show(aligned)}"]
        smooth = ["antialias=True"] if operator_of(node).endswith("_aa") else []
        return call_piece("F.interpolate", [*items, f'mode="{mode}"', *aligned_item, *smooth])

    return spell


def _both(function: str) -> Callable[[Node, Show], Piece]:
    """Pooling that also gives the places of the largest."""
    return lambda node, show: call_piece(
        function, [*_arguments(node, show, sizes=True), "return_indices=True"]
    )


def _copy(node: Node, show: Show) -> Piece:
    return call_piece(f"{show(node.args[0])}.to", keywords(node, show, LEFT_OUT))


def _reversed(node: Node, show: Show) -> Piece:
    v = arguments_of(node)
    if v["alpha"] != 1:
        return call_piece("torch.rsub", _arguments(node, show))
    return f"{_operand(show(v['other']))} - {show(v['self'])}"


def _stacked(node: Node, show: Show) -> Piece:
    v = arguments_of(node)
    dim = [] if v["dim"] == 0 else [f"dim={show(v['dim'])}"]
    return call_piece(f"torch.{operator_of(node)}", [listed(show(t) for t in v["tensors"]), *dim])


def _over(node: Node, show: Show) -> str:
    """The first operand's value after the second was copied into it."""
    place, value = (show(a) for a in node.args[:2])
    return f"{value}.expand_as({place}).to({place})"


SPECIAL: dict[str, Callable[[Node, Show], Piece]] = {
    "slice": _slice,
    "select": _select,
    "index": _index,
    "split_with_sizes": _split,
    "dropout": _dropout("F.dropout"),
    "alpha_dropout": _dropout("F.alpha_dropout"),
    "feature_dropout": _feature_dropout,
    "embedding": _embedding,
    "batch_norm": _norm("F.batch_norm", "training"),
    "instance_norm": _norm("F.instance_norm", "use_input_stats"),
    "einsum": _einsum,
    "cat": _stacked,
    "stack": _stacked,
    "rsub": _reversed,
    "copy": _over,
    "neg": lambda node, show: f"-{show(node.args[0])}",
    "lift_fresh_copy": _attribute(".clone()"),
    "numpy_T": _attribute(".T"),
    "mT": _attribute(".mT"),
    "_to_copy": _copy,
    "upsample_nearest1d": _resize("nearest"),
    "upsample_nearest2d": _resize("nearest"),
    "upsample_nearest3d": _resize("nearest"),
    "_upsample_nearest_exact2d": _resize("nearest-exact"),
    "upsample_linear1d": _resize("linear"),
    "upsample_bilinear2d": _resize("bilinear"),
    "_upsample_bilinear2d_aa": _resize("bilinear"),
    "upsample_bicubic2d": _resize("bicubic"),
    "upsample_trilinear3d": _resize("trilinear"),
    "adaptive_max_pool1d": _both("F.adaptive_max_pool1d"),
    "adaptive_max_pool2d": _both("F.adaptive_max_pool2d"),
    "adaptive_max_pool3d": _both("F.adaptive_max_pool3d"),
    "max_pool1d_with_indices": _both("F.max_pool1d"),
    "max_pool2d_with_indices": _both("F.max_pool2d"),
    "max_pool3d_with_indices": _both("F.max_pool3d"),
}
# What those call.
_SPECIAL_HEADS = set(
    """F.dropout F.alpha_dropout torch.feature_dropout F.embedding F.batch_norm F.instance_norm
    torch.einsum torch.cat torch.stack torch.rsub F.interpolate F.adaptive_max_pool1d
    F.adaptive_max_pool2d F.adaptive_max_pool3d F.max_pool1d F.max_pool2d F.max_pool3d""".split()
)
