from __future__ import annotations

import keyword
import unicodedata

import pytest
from modelspeed.core.naming import MARK, inside, outside

NAMES = (
    "meta", "_graph", "recompile", "print_readable", "_in_spec", "_out_spec", "code", "graph",
    "shape_env", "self", "1a", "a-b", "a/b", "a:b", "a[0]", "a b", "a\nb", "'", '"', "\\", "é",
    "数", "_", "_x", "_-", "-x41_", "-_x", "_x2d_", MARK, f"{MARK}meta", f"{MARK}_x2d_",
    "_packed_0", "0", "ﬁ", "fi", "\uff41", "a", "\u212a", "K",
)  # fmt: skip


@pytest.mark.parametrize("name", [*NAMES, *keyword.kwlist, "l1.0.conv", "meta.lambda.a-b"])
def test_any_name_comes_back_as_it_was(name):
    assert outside(inside(name)) == name
    for part in inside(name).split("."):
        assert part.isascii() and (part.isidentifier() or part.isdigit())
        assert not keyword.iskeyword(part)


def test_different_names_stay_different_and_usual_ones_as_they_are():
    every = [*NAMES, *keyword.kwlist, *map(inside, NAMES)]
    assert len({inside(name) for name in every}) == len(set(every))
    assert inside("features.0.conv_1.weight") == "features.0.conv_1.weight"


def test_names_that_python_folds_do_not_meet_inside():
    for one, other in (
        ("ﬁ", "fi"),
        ("\uff41", "a"),
        ("\u00b5", "\u03bc"),
        ("\U0001d465", "x"),
        ("\u212a", "K"),
    ):
        assert unicodedata.normalize("NFKC", one) == unicodedata.normalize("NFKC", other)
        assert inside(one) != inside(other) and inside(f"m.{one}.weight").isascii()


@pytest.mark.parametrize("part", ["user__a_x110000_", "user__a_xffffffffff_", "user__a_x2e_b"])
def test_what_inside_never_writes_stays_one_part_of_a_name(part):
    assert outside(f"l.{part}.weight") == f"l.{part.removeprefix(MARK)}.weight"
