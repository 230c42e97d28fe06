"""A graph's nodes as the statements of a `forward`, in blocks as the modules lie."""

from __future__ import annotations

import operator
import re
from collections.abc import Mapping

import torch
from torch import Tensor
from torch.fx import Node

from ...core.errors import EditError
from ...core.naming import outside
from .layers import SourceLayer
from .layout import WIDTH, Call, Piece, call_piece, lines, listed, prefixed
from .literals import literal
from .spelling import FALLBACK, operator_of, spelled
from .tree import Branch, reached
from .values import arguments_of, value_text
from .variables import Variables

INDENT = " " * 8
_SCALARS: dict[object, str] = {
    operator.mul: "*", operator.add: "+", operator.sub: "-", operator.floordiv: "//",
    operator.truediv: "/", operator.mod: "%", operator.pow: "**",
}  # fmt: skip
# What gives its input back as it is.
_SAME = {"alias", "lift_fresh", "lift", "lift_fresh_"}
# What an unnamed result is best called; all else is x, y, z.
_NAMED = {"scaled_dot_product_attention": "attended", "split_with_sizes": "part", "unbind": "part"}
LEAVES = ("conv", "bn", "norm", "fc", "lin", "dense", "act", "proj")


class Forward:
    """Written once, front to back."""

    def __init__(self, nodes: list[Node], layers: Mapping[Node, SourceLayer], root: Branch) -> None:
        self._nodes, self._layers, self._root = nodes, layers, root
        self._same = {n: n.args[0] for n in nodes if _is_same(n)}
        self._names = Variables(self._last_reads())
        self._written: list[str] = []
        self._text: dict[Node, str] = {}  # sizes and what is computed from them
        self._block = ""
        self._open: tuple[str, Call] | None = None  # a statement that may be continued

    def lines(self, inputs: Mapping[Node, str], outputs: object) -> list[str]:
        """All statements; `inputs` maps placeholders to names, `outputs` is what is returned."""
        for node, name in inputs.items():
            self._names.give(node, name)
        tensors = [n for n in inputs if isinstance(n.meta.get("val"), Tensor)]
        if any(_has_device(n) for n in self._nodes) and tensors:
            self._written.append(f"{INDENT}device = {self._show(tensors[0])}.device")
        for now, node in enumerate(self._nodes):
            if node.op == "output":
                self._separate("")
                self._put(prefixed("return ", self._output(outputs)))
            elif node.op == "call_module":
                raise EditError(f"the graph calls `{node.target}`, which is not an operator")
            elif node.op == "call_function" and node not in self._same:
                self._statement(node, now)
            self._names.end(now)
        return self._written

    def _last_reads(self) -> dict[Node, int]:
        last: dict[Node, int] = {}
        for now, node in enumerate(self._nodes):
            for source in node.all_input_nodes:
                last[self._origin(source)] = now
        return last

    def _origin(self, node: Node) -> Node:
        while node in self._same:
            node = self._same[node]  # type: ignore[assignment]
        return node

    def _show(self, value: object) -> Piece:
        return value_text(value, self._name)

    def _name(self, node: Node) -> str:
        node = self._origin(node)
        if node.op == "get_attr":
            return reached(self._root, outside(str(node.target)))
        return self._text[node] if node in self._text else self._names[node]

    def _statement(self, node: Node, now: int) -> None:
        name = operator_of(node)
        if name == "sym_size":
            self._size(node)
        elif node.target in _SCALARS:
            self._scalar(node)
        elif node.target is operator.getitem:
            self._item(node, now)
        elif name:
            self._operator(node, name, now)
        else:
            raise EditError(f"the graph holds `{node.target}`, which has no plain spelling")

    def _size(self, node: Node) -> None:
        v = arguments_of(node)
        expression = f"{self._show(v['self'])}.shape[{self._show(v['dim'])}]"
        same = next((n for n in self._text if _same_size(n, node)), None)
        if same is not None:
            self._text[node] = self._text[same]
            return
        self._text[node] = self._names.keep("batch" if v["dim"] == 0 else "size")
        self._put(f"{self._text[node]} = {expression}")

    def _scalar(self, node: Node) -> None:
        left, right = (_wrapped(self._show(a)) for a in node.args)
        text = f"{left} {_SCALARS[node.target]} {right}"
        if any(n in self._names for n in node.all_input_nodes):  # a variable that may pass on
            self._put(f"{(name := self._names.keep('number'))} = {text}")
            text = name
        self._text[node] = text

    def _item(self, node: Node, now: int) -> None:
        source, place = node.args
        if node in self._names or not node.users:
            return
        expression = f"{self._show(source)}[{self._show(place)}]"
        self._put(f"{self._names.give(node, None)} = {expression}")

    def _operator(self, node: Node, name: str, now: int) -> None:
        layer = self._layers.get(node)
        if layer is not None:
            path = reached(self._root, outside(layer.name))
            piece: Piece = call_piece(path, [self._show(layer.data)])
        else:
            piece = spelled(node, self._show)
        self._separate(self._block_of(node, layer))
        if str(piece).startswith(FALLBACK):
            self._written.append(f"{INDENT}# An operator without a spelling of its own.")
        before = self._assigned(node, name, layer, now)
        if not self._joined(before, piece):
            self._put(prefixed(before, piece))
            self._open = (before, piece) if isinstance(piece, Call) else None

    def _joined(self, before: str, piece: Piece) -> bool:
        """`x = x.a()` and then `x = x.b()` or `x = x * c` in one statement, where that fits."""
        last, name, text = self._open, before.removesuffix(" = "), str(piece)
        rest = text.removeprefix(name)
        chained = rest.startswith(".") if isinstance(piece, Call) else rest.startswith(" ")
        if last is None or last[0] != before or rest == text or not chained:
            return False
        line = f"{INDENT}{before}{last[1]}"
        again = re.search(rf"\b{name}\b", rest) is not None
        if again or len(line + rest) > WIDTH or self._written[-1] != line:
            return False
        self._written[-1] = line + rest
        longer = Call("", (f"{last[1]}{rest}",), "")
        self._open = (before, longer) if isinstance(piece, Call) else None
        return True

    def _assigned(self, node: Node, name: str, layer: SourceLayer | None, now: int) -> str:
        """`NAME = `, or `a, b = ` for the parts of a tuple; nothing where nobody reads it."""
        if not node.users:
            return ""
        parts = node.meta.get("val")
        items = [u for u in node.users if u.target is operator.getitem]
        indices = [u.args[1] for u in items]
        if isinstance(parts, (tuple, list)) and len(items) == len(node.users) == len(set(indices)):
            by_place = dict(zip(indices, items, strict=True))
            names = []
            for place in range(len(parts)):
                item = by_place.get(place)
                wanted = "_" if item is None else _NAMED.get(name)
                names.append("_" if item is None else self._names.give(item, wanted))
            return f"{', '.join(names)}{',' if len(names) == 1 else ''} = "
        sources = [self._origin(n) for n in node.all_input_nodes]
        followed = None
        if name != "embedding":
            followed = self._names.follow(node, sources, now)
        wanted = _NAMED.get(name) if layer is None else _leaf(outside(layer.name))
        return f"{followed or self._names.give(node, wanted)} = "

    def _block_of(self, node: Node, layer: SourceLayer | None) -> str | None:
        """The block of modules a statement belongs to, None where it may belong to any."""
        targets = [str(n.target) for n in node.all_input_nodes if n.op == "get_attr"]
        names = [layer.name] if layer is not None else [n.rpartition(".")[0] or n for n in targets]
        if not names:
            return None
        parts = outside(names[0]).split(".")[:-1]
        numbered = next((i for i, part in enumerate(parts) if part.isdecimal()), len(parts))
        return ".".join(parts[: numbered + 1])

    def _separate(self, block: str | None) -> None:
        if block is None or block == self._block:
            return
        if self._written:
            self._written.append("")
        # A name may hold anything, a line break too; a comment holds words only.
        if re.fullmatch(r"[\w.]+", block):
            self._written.append(f"{INDENT}# {block}")
        self._block = block

    def _put(self, piece: Piece) -> None:
        self._written += lines(piece, INDENT)

    def _output(self, value: object) -> Piece:
        if isinstance(value, dict):
            items = [prefixed(f"{_quoted(k)}: ", self._output(v)) for k, v in value.items()]
            return Call("{", tuple(items), "}")
        if isinstance(value, tuple):
            parts = tuple(self._output(v) for v in value)
            return f"({parts[0]},)" if len(parts) == 1 else Call("(", parts, ")")
        return listed(map(self._output, value)) if isinstance(value, list) else self._show(value)


def needed(nodes: list[Node]) -> list[Node]:
    """Without checks and what nobody reads; changes in place stay."""
    kept: set[Node] = set()
    for node in reversed(nodes):
        changes = bool(operator_of(node)) and node.target._schema.is_mutable  # type: ignore[union-attr]
        if node.op in ("output", "placeholder") or changes or kept.intersection(node.users):
            kept.add(node)
    return [n for n in nodes if n in kept]


def _quoted(key: object) -> str:
    return literal(key)


def _leaf(name: str) -> str | None:
    leaf = name.rpartition(".")[2]
    generic = leaf.isdecimal() or leaf.lower().startswith(LEAVES) or len(leaf) < 2
    return None if generic else leaf


def _wrapped(piece: Piece) -> str:
    return f"({piece})" if " " in str(piece) else str(piece)


def _is_same(node: Node) -> bool:
    name = operator_of(node)
    if name == "slice":
        v = arguments_of(node)
        return v["start"] in (None, 0) and v["end"] in (None, 2**63 - 1) and v["step"] == 1
    return name in _SAME


def _same_size(one: Node, other: Node) -> bool:
    if operator_of(one) != "sym_size":
        return False
    return one.args == other.args


def _has_device(node: Node) -> bool:
    values = [*node.args, *node.kwargs.values()]
    return any(isinstance(v, torch.device) for v in values)
