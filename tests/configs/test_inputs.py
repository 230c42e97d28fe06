from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from modelspeed.configs.inputs import parse_inputs, with_flags, with_input_size
from modelspeed.configs.recipe import DataSpec, InputSpec, ModelSpec, Recipe, make_step
from modelspeed.core.errors import UsageError

CWD = Path("/here")


def test_inputs_are_sizes_and_a_dtype() -> None:
    assert parse_inputs("1x3x224x224:float32, 1x77:int64,8") == (
        InputSpec(shape=(1, 3, 224, 224), dtype="float32"),
        InputSpec(shape=(1, 77), dtype="int64"),
        InputSpec(shape=(8,), dtype="float32"),
    )


def test_the_axis_of_the_batch_is_said_last() -> None:
    assert parse_inputs("src=24x1x8:batch=1, 8x4:float16:batch=none, 1x9:int64:0..5:batch=0") == (
        InputSpec(shape=(24, 1, 8), name="src", batch=1),
        InputSpec(shape=(8, 4), dtype="float16", batch="none"),
        InputSpec(shape=(1, 9), dtype="int64", range=(0, 5), batch=0),
    )


def test_a_size_that_varies_stands_between_its_ends() -> None:
    found = parse_inputs("ids=1x1..128..512:int64:0..99, 1x3x224..x8..16..32:batch=0")
    assert found == (
        InputSpec(shape=(1, 128), dtype="int64", name="ids", range=(0, 99), varies={"1": "1..512"}),
        InputSpec(shape=(1, 3, 224, 16), batch=0, varies={"2": "1..", "3": "8..32"}),
    )
    assert found[0].entry()["varies"]["1"] == {"low": 1, "high": 512, "multiple": 1, "tied": ""}


@pytest.mark.parametrize(
    "text", ["1x2..3", "1x..3", "1x4..3..9", "1x1..9..3", "1x2..3..", "2..x1:batch=0"]
)
def test_a_size_outside_of_its_ends_is_a_usage_error(text: str) -> None:
    with pytest.raises(UsageError, match="`--inputs`"):
        parse_inputs(text)


@pytest.mark.parametrize("text", ["1x3:batch=", "1x3:batch=2", "1x3:batch=-1", "1x3:batch=x"])
def test_a_batch_that_is_not_an_axis_is_a_usage_error(text: str) -> None:
    with pytest.raises(UsageError, match="batch"):
        parse_inputs(text)


@pytest.mark.parametrize("text", ["", "1x", "x1", "1x-3", "1x0", "1x3:", "1x3:flot32", "1,,2", "²"])
def test_bad_inputs_are_usage_errors(text: str) -> None:
    with pytest.raises(UsageError, match="`--inputs`"):
        parse_inputs(text)


def test_the_nearest_dtype_is_offered() -> None:
    with pytest.raises(UsageError, match="did you mean `float32`"):
        parse_inputs("1x3:flot32")


@given(st.text() | st.text(alphabet="0123x:,float "))
def test_any_inputs_text_is_specs_or_a_usage_error(text: str) -> None:
    try:
        assert parse_inputs(text)
    except UsageError as error:
        assert "`--inputs`" in str(error)


def test_flags_win_over_the_recipe_and_are_relative_to_the_current_folder() -> None:
    recipe = Recipe(
        model=ModelSpec(factory="m.py:f", args={"w": 1}),
        data=DataSpec(factory="d.py:f", metric="m.py:top5"),
        base=Path("/recipe"),
    )
    changed = with_flags(recipe, model="a.py:g", data="b.py:h", inputs="1x2", cwd=CWD)
    assert changed.model == ModelSpec(factory="/here/a.py:g")
    assert changed.data == DataSpec(factory="/here/b.py:h", metric="m.py:top5")
    assert changed.inputs == (InputSpec(shape=(1, 2)),)


def test_without_flags_the_recipe_is_as_it_was() -> None:
    recipe = Recipe(model=ModelSpec(factory="m.py:f", args={"w": 1}))
    assert with_flags(recipe, cwd=CWD) == recipe


@pytest.mark.parametrize("bad", ["model", "model.py", "model.py:", "model.py:a-b", ".py:f"])
def test_a_flag_that_is_no_factory_is_a_usage_error(bad: str) -> None:
    with pytest.raises(UsageError, match=r"`--data` is .*FILE\.py:NAME"):
        with_flags(Recipe(), data=bad, cwd=CWD)


def test_inputs_may_have_a_name_and_a_range() -> None:
    assert parse_inputs("ids=1x128:int64:0..30521,1x3") == (
        InputSpec(shape=(1, 128), dtype="int64", name="ids", range=(0, 30521)),
        InputSpec(shape=(1, 3)),
    )


@pytest.mark.parametrize("text", ["1x2:int64:5", "1x2:int64:9..1", "1x2:float32:0..1", "a b=1x2"])
def test_a_bad_name_or_range_is_a_usage_error(text: str) -> None:
    with pytest.raises(UsageError, match="`--inputs`"):
        parse_inputs(text)


def test_an_input_size_is_the_first_step_in_place_of_the_recipes_own() -> None:
    recipe = Recipe(adjust=(make_step("input_size", ratio=0.5), make_step("prune")))
    for text, size in (("160", 160), ("160x200", (160, 200))):
        made = with_input_size(recipe, text).adjust
        assert made == (make_step("input_size", size=size), make_step("prune"))
    for text in ("0", "1x2x3", "small", "160x", "-3"):
        with pytest.raises(UsageError, match="write a number such as 160"):
            with_input_size(recipe, text)
