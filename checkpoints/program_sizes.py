"""Sizes that a `.pt2` writes as arithmetic: read here, so that sympy evaluates nothing else.

torch hands these texts to sympy, which runs them as Python. What it is given instead is written
again from what was understood, and is bounded: in length, in depth, in how large a number it could
make and into how many terms it could be expanded.
"""

from __future__ import annotations

import re
from math import prod
from typing import NamedTuple

from .program_names import SYMBOL

LONGEST, DEEPEST = 20_000, 100
MAX_BITS, MAX_TERMS = 4096, 1000
MAX_DIVIDED = 64  # terms of both sides of a division: sympy looks for what they have in common
TOKEN = re.compile(
    r"\s*(?:(?P<number>[0-9]+(?:\.[0-9]*)?(?:[eE][+-]?[0-9]{1,3})?)(?![\w.])"
    r"|(?P<name>[A-Za-z_][A-Za-z0-9_]*)|'(?P<text>[^']*)'"
    r"|(?P<sign>\*\*|//|<=|>=|==|!=|[-+*/%(),<>=~&|]))",
    re.ASCII,
)
STRENGTH = {
    "|": 1, "&": 2, "<": 3, ">": 3, "<=": 3, ">=": 3, "==": 3, "!=": 3,
    "+": 4, "-": 4, "*": 5, "/": 5, "//": 5, "%": 5, "**": 7,
}  # fmt: skip
UNARY = 6
CONSTANTS = {"True", "False", "true", "false", "oo", "int_oo"}
DIVISIONS = {"%", "//", "Mod", "PythonMod", "ModularIndexing", "FloorDiv", "CleanDiv", "CeilDiv"}
POWERS = {"Pow", "FloatPow", "PowByNatural"}
SUMS, PRODUCTS = {"Add"}, {"Mul"}
CALLS = POWERS | SUMS | PRODUCTS | {
    "Integer", "Rational", "Mod", "Max", "Min", "Abs", "Not", "And", "Or", "Eq", "Ne", "Lt", "Le",
    "Gt", "Ge", "Equality", "Unequality", "StrictLessThan", "LessThan", "StrictGreaterThan",
    "GreaterThan", "FloorDiv", "CleanDiv", "CeilDiv", "PythonMod", "ModularIndexing", "Where",
    "IntTrueDiv", "FloatTrueDiv", "ToFloat", "TruncToInt", "TruncToFloat", "CeilToInt",
    "FloorToInt", "RoundToInt", "RoundDecimal", "Identity",
}  # fmt: skip
ASSUMPTIONS = re.compile(r"(?:integer|positive|nonnegative|negative|real|finite|zero)")
PRECISION = 128  # bits


class SizeExpression(NamedTuple):
    """`text` is rewritten; a value of at most `bits`, a sum of at most `terms`."""

    text: str
    bits: int
    terms: int
    literal: int | None = None


def size_text(text: str) -> str:
    """The same arithmetic, rewritten. Raises ValueError if it is not plain arithmetic."""
    if len(text) > LONGEST:
        raise ValueError("an expression longer than any size is")
    return _Reader(text).whole().text


class _Reader:
    def __init__(self, text: str) -> None:
        self.tokens: list[tuple[str, str]] = []
        at, end = 0, len(text.rstrip())
        while at < end:
            match = TOKEN.match(text, at, end)
            if match is None or match.lastgroup is None:
                raise ValueError("it is not arithmetic")
            self.tokens.append((match.lastgroup, match[match.lastgroup]))
            at = match.end()
        self.tokens.append(("end", ""))
        self.at, self.depth = 0, 0

    def whole(self) -> SizeExpression:
        part = self.expression(0)
        self.take("end")
        return part

    def next(self) -> tuple[str, str]:
        self.at += 1
        return self.tokens[self.at - 1]

    def take(self, kind: str, value: str = "") -> str:
        actual, text = self.next()
        if actual != kind or (value and text != value):
            raise ValueError("it is not arithmetic")
        return text

    def is_next(self, sign: str) -> bool:
        return self.tokens[self.at] == ("sign", sign)

    def expression(self, above: int) -> SizeExpression:
        self.depth += 1
        if self.depth > DEEPEST:
            raise ValueError("an expression deeper than any size is")
        left = self.operand()
        while True:
            kind, sign = self.tokens[self.at]
            strength = STRENGTH.get(sign, 0) if kind == "sign" else 0
            if strength <= above:
                break
            self.next()
            # A power binds to the right: what follows it is read with less than its own strength.
            left = _joined(left, sign, self.expression(UNARY if sign == "**" else strength))
        self.depth -= 1
        return left

    def operand(self) -> SizeExpression:
        kind, text = self.next()
        if kind == "sign" and text in "-+~":
            inner = self.expression(UNARY)
            sign = {"-": -1, "+": 1}.get(text)
            literal = None if inner.literal is None or sign is None else sign * inner.literal
            return inner._replace(text=f"({text}{inner.text})", literal=literal)
        if kind == "sign" and text == "(":
            inner = self.expression(0)
            self.take("sign", ")")
            return inner
        if kind == "number":
            return _number(text)
        if kind == "name" and not self.is_next("("):
            if text in CONSTANTS:
                return SizeExpression(text, 1, 1)
            if SYMBOL.fullmatch(text):
                return SizeExpression(text, 64, 1)
        elif kind == "name":
            self.take("sign", "(")
            return self.symbol() if text == "Symbol" else self.call(text)
        raise ValueError("it is not arithmetic")

    def symbol(self) -> SizeExpression:
        """`Symbol('s0', integer=True)`."""
        name = self.take("text")
        if not SYMBOL.fullmatch(name):
            raise ValueError("a symbol that no size has")
        facts = [f"'{name}'"]
        while not self.is_next(")"):
            self.take("sign", ",")
            fact = self.take("name")
            self.take("sign", "=")
            value = self.take("name")
            if not ASSUMPTIONS.fullmatch(fact) or value not in ("True", "False"):
                raise ValueError("an assumption that no size has")
            facts.append(f"{fact}={value}")
        self.next()
        return SizeExpression(f"Symbol({', '.join(facts)})", 64, 1)

    def decimal(self) -> SizeExpression:
        """`Float('0.5', precision=53)`."""
        kind, text = self.next()
        negative = kind == "text" and text.startswith("-")
        text = text[1:] if negative else text
        match = TOKEN.fullmatch(text)
        if kind not in ("text", "number") or match is None or match["number"] is None:
            raise ValueError("it is not arithmetic")
        facts = f"'{'-' if negative else ''}{text}'"
        if self.is_next(","):
            self.next()
            self.take("name", "precision")
            self.take("sign", "=")
            precision = _number(self.take("number")).literal
            if precision is None or not 1 <= precision <= PRECISION:
                raise ValueError("a precision that no size has")
            facts += f", precision={precision}"
        self.take("sign", ")")
        return SizeExpression(f"Float({facts})", _number(text).bits, 1)

    def call(self, name: str) -> SizeExpression:
        if name == "Float":
            return self.decimal()
        if name not in CALLS:
            raise ValueError("a call of what no size needs")
        parts: list[SizeExpression] = []
        while not self.is_next(")"):
            if parts:
                self.take("sign", ",")
            parts.append(self.expression(0))
        self.next()
        text = f"{name}({', '.join(part.text for part in parts)})"
        return _called(name, parts, text)


def _called(name: str, parts: list[SizeExpression], text: str) -> SizeExpression:
    if name == "Integer" and len(parts) == 1:
        return parts[0]._replace(text=text)
    if name in POWERS:
        if len(parts) != 2:
            raise ValueError("it is not arithmetic")
        return _power(parts[0], parts[1], text)
    bits, terms = sum(p.bits for p in parts), 1
    if name in DIVISIONS:
        _check_divided(parts)
    if name in SUMS:
        bits, terms = max((p.bits for p in parts), default=1) + len(parts), _sum(parts)
    if name in PRODUCTS:
        for part in parts:
            terms *= part.terms
    return _bounded(SizeExpression(text, bits, terms))


def _joined(left: SizeExpression, sign: str, right: SizeExpression) -> SizeExpression:
    text = f"({left.text} {sign} {right.text})"
    if sign == "**":
        return _power(left, right, text)
    if sign in "+-":
        return _bounded(
            SizeExpression(text, max(left.bits, right.bits) + 1, left.terms + right.terms)
        )
    if sign in DIVISIONS:
        _check_divided([left, right])
    terms = left.terms * right.terms if sign in "*/" else 1
    return _bounded(SizeExpression(text, left.bits + right.bits, terms))


def _check_divided(parts: list[SizeExpression]) -> None:
    if prod(part.terms for part in parts) > MAX_DIVIDED:
        raise ValueError("a division that no size has")


def _power(base: SizeExpression, exponent: SizeExpression, text: str) -> SizeExpression:
    """The exponent is a number: nothing bounds what a size would make of it."""
    times = None if exponent.literal is None else abs(exponent.literal)
    if times is None and re.fullmatch(r"(?:Float\('-?0?\.5'.*\)|Rational\(.*, .*\)|0?\.5)",
                                      exponent.text):  # fmt: skip
        times = 1 if exponent.bits <= 4 else None  # a root
    if times is None or times > MAX_BITS or base.bits * times > MAX_BITS:
        raise ValueError("a power that no size has")
    if base.terms > 1 and times * base.terms.bit_length() > MAX_TERMS.bit_length():
        raise ValueError("a power that no size has")
    return _bounded(SizeExpression(text, base.bits * max(1, times), base.terms ** max(1, times)))


def _sum(parts: list[SizeExpression]) -> int:
    return sum(part.terms for part in parts) or 1


def _bounded(part: SizeExpression) -> SizeExpression:
    if part.bits > MAX_BITS or part.terms > MAX_TERMS:
        raise ValueError("a number that no size is")
    return part


def _number(text: str) -> SizeExpression:
    mantissa, _, exponent = text.lower().partition("e")
    if len(mantissa) > 40 or abs(int(exponent or 0)) > 400:
        raise ValueError("a number that no size is")
    literal = int(text) if text.isdigit() else None
    bits = literal.bit_length() if literal is not None else 4 * (len(mantissa) + int(exponent or 0))
    return SizeExpression(text if literal is None else str(literal), max(1, abs(bits)), 1, literal)
