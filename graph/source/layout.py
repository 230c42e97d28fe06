"""Lines of Python in the usual format: what fits stands on one line, else one item a line."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

WIDTH = 88
STEP = "    "


@dataclass(frozen=True)
class Call:
    """`head`, items between commas, `close`: a call, a list or a dict."""

    head: str
    items: tuple[Piece, ...]
    close: str = ")"

    def __str__(self) -> str:
        return f"{self.head}{', '.join(str(item) for item in self.items)}{self.close}"


Piece = str | Call


def call_piece(function: str, items: Iterable[Piece]) -> Call:
    return Call(f"{function}(", tuple(items))


def listed(items: Iterable[Piece]) -> Call:
    return Call("[", tuple(items), "]")


def prefixed(before: str, piece: Piece) -> Piece:
    """`before` directly in front, such as `name = ` or `"key": `."""
    if isinstance(piece, str):
        return before + piece
    return Call(before + piece.head, piece.items, piece.close)


def lines(piece: Piece, indent: str, after: str = "") -> list[str]:
    """`piece` indented, with `after` (a comma, or nothing) at its end."""
    flat = f"{indent}{piece}{after}"
    if isinstance(piece, str) or len(flat) <= WIDTH or not piece.items:
        return [flat]
    inner = [line for item in piece.items for line in lines(item, indent + STEP, ",")]
    return [indent + piece.head, *inner, f"{indent}{piece.close}{after}"]
