"""Calls that a node of a `.pt2` may make: operators on tensors and sizes, by their own names."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cache, lru_cache

import torch

# Arithmetic on sizes, and the switches that pre-dispatch graphs keep. Not `operator.call` and
# the like, which would call what a file names.
HARMLESS = re.compile(
    r"_operator\.(?:eq|ne|le|ge|lt|gt|neg|pos|mul|add|sub|floordiv|mod|pow|truediv|and_|or_|"
    r"lshift|rshift)|math\.(?:trunc|ceil|floor|sqrt)|"
    r"torch\.(?:_?sym_(?:not|int|float|ite|max|min|sqrt|sum))|"
    r"torch\._C\._set_grad_enabled|torch\.amp\.autocast_mode\._(?:enter|exit)_autocast|"
    r"torch\._functorch\.(?:predispatch|vmap)\.(?:_add_batch_dim|_remove_batch_dim|"
    r"_vmap_(?:in|de)crement_nesting|lazy_load_decompositions)"
)
# Of the operators that take graphs or other operators: those whose arguments are checked here too.
HIGHER = {
    f"torch.ops.higher_order.{name}"
    for name in (
        "associative_scan", "auto_functionalized", "auto_functionalized_v2", "cond", "map",
        "flex_attention", "hints_wrapper", "invoke_subgraph", "map_impl", "out_dtype", "scan",
        "strict_mode", "tag_activation_checkpoint", "while_loop", "wrap", "wrap_with_autocast",
        "wrap_with_set_grad_enabled",
    )
}  # fmt: skip
PART = re.compile(r"[A-Za-z_]\w*", re.ASCII)
# They open paths, talk to other processes, or trust sizes that nothing checked.
NAMESPACES = {
    "_c10d_functional", "_c10d_functional_autograd", "_dtensor", "_test", "c10d", "debug_mode_ops",
    "debugprims", "fsdp", "image", "inductor", "inductor_prims", "profiler", "static_runtime",
    "symm_mem",
}  # fmt: skip
UNCHECKED = re.compile(
    r"aten::(?:from_file|_nested_view_from_(?:buffer|jagged)\w*|_sparse_\w+_unsafe|"
    r"_reshape_alias\w*)(?:\..*)?|mkldnn::data_ptr"
)
PATHS = re.compile(r"file|path|dir|url|uri", re.IGNORECASE)  # within the name of an argument
NUMBERS = {"as_int", "as_float", "as_bool", "as_complex", "as_sym_int", "as_sym_float",
           "as_sym_bool"}  # fmt: skip
# By the last word of a type in an operator's schema: how its values are written.
VALUES = {
    "str": {"as_string"}, "Device": {"as_device"}, "ScalarType": {"as_scalar_type", "as_int"},
    "Layout": {"as_layout", "as_int"}, "MemoryFormat": {"as_memory_format", "as_int"},
    "Tensor": {"as_tensor", "as_optional_tensor"} | NUMBERS,
    **dict.fromkeys(("int", "float", "bool", "number", "complex"), NUMBERS | {"as_tensor"}),
}  # fmt: skip
CODE = {"as_graph", "as_operator", "as_string_to_argument"}  # of the operators on operators alone
TEXTS = {"as_string", "as_strings"}


def registered() -> frozenset[str]:
    return frozenset(torch._C._dispatch_get_all_op_names())


def reason_against(target: str, operators: frozenset[str]) -> str:
    """The reason why a node may not call `target`: empty if it may, `unknown` if no library has
    it."""
    if HARMLESS.fullmatch(target) or target in HIGHER:
        return ""
    first, *rest = target.split(".")
    whole = len(rest) == 4 and all(PART.fullmatch(part) for part in rest)
    if not whole or [first, rest[0]] != ["torch", "ops"]:
        return f"a call of {target[:60]}"
    name = f"{rest[1]}::{rest[2]}" + ("" if rest[3] == "default" else f".{rest[3]}")
    if rest[1] in NAMESPACES or UNCHECKED.fullmatch(name):
        return f"{name}, which opens files, talks to others or trusts sizes that it is told"
    if name not in operators:  # it may be an attribute of Python's on the way there
        return "unknown"
    schema = _schema(target)
    takes = [a.name for a in schema.arguments if "str" in str(a.type) and PATHS.search(a.name)]
    return f"{name}, which opens files" if takes else ""


def unfit_argument(target: str, arguments: Iterable[tuple[str, str]]) -> str:
    """The first of the (name, how its value is written) that is not a literal of its type."""
    if HARMLESS.fullmatch(target):
        return next((f"{n or 'an argument'} as {k}" for n, k in arguments if k in CODE), "")
    if target in HIGHER:
        return ""
    types = _types(target)
    for name, kind in arguments:
        if name not in types or not _fits(types[name], kind):
            return f"{name[:60] or 'an argument'} as {kind}"
    return ""


@cache
def _types(target: str) -> dict[str, str]:
    """By argument, of a registered operator. Asking its schema takes longer than all the rest."""
    return {a.name: str(a.real_type) for a in _schema(target).arguments}


@lru_cache(maxsize=1024)
def _fits(wanted: str, kind: str) -> bool:
    if kind in CODE:
        return False
    inner = re.sub(r"^Optional\[(.*)\]$", r"\1", wanted)
    if kind == "as_none" or inner in VALUES:
        return kind == "as_none" or kind in VALUES[inner]
    if kind in TEXTS:
        return "str" in inner
    return True


def _schema(target: str) -> torch._C.FunctionSchema:
    """`torch.ops.aten.add.Tensor`: registered, so these are not attributes of Python's."""
    _, _, namespace, name, overload = target.split(".")
    operator = getattr(getattr(getattr(torch.ops, namespace), name), overload)
    schema: torch._C.FunctionSchema = operator._schema
    return schema
