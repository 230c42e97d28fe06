"""Sizes are read as arithmetic within bounds, and rewritten for sympy."""

from __future__ import annotations

import pytest
import sympy
from modelspeed.checkpoints.program_sizes import size_text


@pytest.mark.parametrize(
    "text",
    [
        "Add(Symbol('s77', integer=True, positive=True), Integer(2))",
        "Mul(Integer(-1), Symbol('s0', integer=True))",
        "Pow(Symbol('s0'), Integer(2))",
        "Float('0.5', precision=53)",
        "Rational(1, 2)",
        "-s0**2",
        "2*s0 + 3",
        "s0 - s1 - 2",
        "(s0 + s1)*3 >= 4",
        "~(s0 < 2)",
        "Max(s0, 2) % 3",
        "2**3*s0",
        "s0**(-1)",
    ],
)
def test_arithmetic_keeps_its_meaning(text):
    assert sympy.sympify(size_text(text)) == sympy.sympify(text)
    assert size_text(size_text(text)) == size_text(text)


@pytest.mark.parametrize(
    "text",
    [
        "9**9**9**9", "Pow(9,Pow(9,Pow(9,9)))", "(((s0**8)**8)**8)**8", "2**s0", "10**10!",
        "1" * 40 + "x", "1" * 3000, "1e999", "(" * 9000, "-" * 9000 + "1", "s0+" * 9000 + "1",
        "*".join(f"(s0+s{i})" for i in range(40)), "+".join(f"s{i}" for i in range(2000)),
        # Sympy looks for common divisors of what both expand to.
        "*".join(f"(s{i}+s{i + 9})" for i in range(9)) + "%s30",
        "ModularIndexing(" + "*".join(f"(s{i}+s{i + 9})" for i in range(9)) + ", s30+s31, 7)",
        "Float('1', precision=999999999)", "Float('1e99999')", "Symbol('x')", "x",
        "Symbol('s0', commutative=False)", "s99999999999", "s0.is_integer", "s0[0]", "'s0'",
        "lambda: 1", "1 if 1 else 2", "eval('1')", "__import__('os')", "Symbol", "Symbol('s0')()",
        "s0\uff0bs1", "", "s0 s1", "s0,", "[s0]", "s0; s1", "s0\n=1", "1_0", "0x10", "1j",
    ],
)  # fmt: skip
def test_what_is_not_or_would_never_end_is_refused_at_once(text):
    with pytest.raises(ValueError):
        size_text(text)
