"""The JSON of a `.pt2`: everything in it that torch evaluates, imports, calls or writes into code.

Texts become code in four ways: sizes are handed to sympy, which evaluates them; tree specs import
what an enum or a default factory is of; nodes call what their target names; and names end up in
the source of the `forward` that is generated.
"""

from __future__ import annotations

import json
import re
from typing import Any

import torch

# Arithmetic, and calls of classes that only hold their arguments (`Symbol('s0', integer=True)`).
NAMES = (
    r"s\d+|u\d+|zf\d+|True|False|None|true|false|oo|int_oo|positive|integer|nonnegative|precision|"
    r"Symbol|Integer|Rational|Float|Add|Mul|Pow|Mod|Max|Min|Abs|Not|And|Or|Eq|Ne|Lt|Le|Gt|Ge|"
    r"Equality|Unequality|StrictLessThan|LessThan|StrictGreaterThan|GreaterThan|FloorDiv|"
    r"CleanDiv|CeilDiv|PythonMod|ModularIndexing|Where|IntTrueDiv|FloatTrueDiv|FloatPow|PowByNatural|"
    r"ToFloat|TruncToInt|TruncToFloat|CeilToInt|FloorToInt|RoundToInt|RoundDecimal|Identity"
)
EXPRESSION = re.compile(
    rf"(?:\b(?:{NAMES})\b|'[a-z]*\d+(?:\.\d+)?'|\d+\.?\d*|[\s+\-*/%(),<>=!&|~])*"
)
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
FILES = {"aten::from_file", "aten::from_file.out", "debugprims::load_tensor"}  # they open paths
# In a name: what could end it and begin a call, once it stands in source code.
BREAKS = re.compile(r"[\"'\\()=\x00-\x1f\x7f]")
IMPORTS = ("__enum__", "default_factory_module", "default_factory_name")
LITERALS = {"as_string": str, "as_strings": list, "metadata": dict}  # quoted, or not written at all
TENSORS = re.compile(r"(?:weight|tensor)_\d+")
DEEPEST = 8


class Texts:
    """`found`: what would run; `pickled`: the parts that the JSON says are pickles.

    `unknown`: operators that no library has registered here.
    """

    def __init__(self) -> None:
        self.found: list[str] = []
        self.pickled: set[str] = set()
        self.unknown: list[str] = []
        self.operators = frozenset(torch._C._dispatch_get_all_op_names())

    def cleaned(self, content: bytes) -> str:
        """The same without guards (torch compiles them). Raises ValueError where it is no JSON."""
        return json.dumps(self._item(json.loads(content.decode("utf-8")), ""))

    def _item(self, item: Any, key: str) -> Any:
        if key == "guards_code":
            return []
        if _literal(item, key):
            return item
        if isinstance(item, dict):
            self._payload(item)
            return {self._name(k): self._item(v, k) for k, v in item.items()}
        if isinstance(item, list):
            return [self._item(v, key) for v in item]
        if isinstance(item, str):
            self._text(item, key)
        return item

    def _payload(self, item: dict[str, Any]) -> None:
        """Where a weight is: torch may read no other part in its place."""
        if "path_name" not in item:
            return
        name = item["path_name"]
        if not isinstance(name, str) or not TENSORS.fullmatch(name):
            self.found.append(_short(name))
        elif item.get("use_pickle"):
            self.pickled.add(name)

    def _text(self, text: str, key: str) -> None:
        if key == "expr_str":
            if not EXPRESSION.fullmatch(text):
                self.found.append(f"the expression {_short(text)}")
        elif key in ("in_spec", "out_spec"):
            self._spec(text, key == "in_spec", 0)
        elif key in ("target", "as_operator"):
            self._target(text)
        else:
            self._name(text)

    def _target(self, target: str) -> None:
        """A node may call what computes on tensors and sizes alone, by its own name."""
        first, *rest = target.split(".")
        if HARMLESS.fullmatch(target) or target in HIGHER:
            return
        if len(rest) != 4 or [first, rest[0]] != ["torch", "ops"]:
            self.found.append(f"a call of {_short(target)}")
            return
        name = f"{rest[1]}::{rest[2]}" + ("" if rest[3] == "default" else f".{rest[3]}")
        if name in FILES:
            self.found.append(f"{name}, which opens files")
        elif name not in self.operators:  # it may be an attribute of Python's on the way there
            self.unknown.append(target)

    def _name(self, text: str) -> str:
        if BREAKS.search(text):
            self.found.append(f"the name {_short(text)}")
        return text

    def _spec(self, text: str, named: bool, depth: int) -> None:
        """JSON in which contexts are JSON again. `named`: its keys become names of arguments."""
        try:
            held = json.loads(text)
        except ValueError:
            if named:
                self._name(text)
            return
        if depth > DEEPEST:
            self.found.append("a tree spec within tree specs")
        else:
            self._spec_part(held, named, depth)

    def _spec_part(self, held: Any, named: bool, depth: int) -> None:
        if isinstance(held, dict):
            self.found += [f"the tree spec's {key}" for key in IMPORTS if key in held]
        if isinstance(held, (dict, list)):
            parts = [*held, *held.values()] if isinstance(held, dict) else held
            for part in parts:
                self._spec_part(part, named, depth)
        elif isinstance(held, str):
            self._spec(held, named, depth + 1)


def _literal(value: Any, key: str) -> bool:
    """Is it of the form that torch writes under `key`: a text, a list or a dict of texts?"""
    if key not in LITERALS or not isinstance(value, LITERALS[key]):
        return False
    parts = value.values() if isinstance(value, dict) else value
    return isinstance(value, str) or all(isinstance(v, str) for v in parts)


def _short(value: Any) -> str:
    return " ".join(str(value)[:60].split())
