from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from modelspeed.configs.load import parse_recipe
from modelspeed.configs.presets import preset_names, read_preset
from modelspeed.core.errors import ConfigError

BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{n}: &{n} [{', '.join([f'*{p}'] * 9)}]\n" for p, n in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "is empty"),
        ("# only a comment\n", "is empty"),
        ("- prune\n", "holds a list"),
        ("prune", "holds a single value"),
        ("version: 1\nadjust: [\n", "not valid YAML at line 3, column 1"),
        ("a: 1\n---\nb: 2\n", "not valid YAML at line 2"),
        ("a: \x00", "not valid YAML at character 4"),
        ('"\\UFFFFFFFF": 1', "not valid YAML"),
        ("version: 1\nversion: 1\n", "`r.yaml:2`: the key `version` is given twice"),
        ("version: 1\nadjust: !!python/object:os.system x\n", "write plain values"),
        ("version: !!int ''\n", "can't be read as"),
        ("? [a]\n: 1\n", "a key is a list or mapping"),
        ('"\\ud800": 1\n', "half a surrogate pair"),
        ("version: " + "9" * 5000, "more than 300 digits"),
        ("version: 1\nadjust: &a [*a]\n", "`r.yaml:2`: its aliases expand to too much"),
        ("a: " + "[" * 5000, "nested deeper than 40"),
        (BOMB, "its aliases expand to too much"),
        ("a: &a 1\nb: [" + "*a, " * 101 + "]", "more than 100 aliases"),
        ("a: [" + "1," * 20_001 + "]", "more than 20000 values"),
        ("é" * 500_001, "larger than 1000000 bytes"),
    ],
)
def test_text_that_is_no_recipe_gets_one_clear_sentence(text: str, says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_recipe(text, "r.yaml", Path("."))
    assert says in str(caught.value) and "`r.yaml" in str(caught.value)


def test_a_plain_anchor_may_be_used_twice() -> None:
    recipe = parse_recipe(
        "version: 1\nadjust: [prune: &p {max_ratio: 0.5}, prune: *p]", "r", Path(".")
    )
    assert recipe.adjust[0] == recipe.adjust[1]


def _never_another_error(text: str) -> None:
    try:
        parse_recipe(text, "r.yaml", Path("."))
    except ConfigError as error:
        assert error.problems and all(p.startswith("`r.yaml") for p in error.problems)


@settings(max_examples=150, deadline=None)
@given(st.text() | st.text(alphabet="{}[]:,&*!-?|>'\"%@`\\#~<xU01.e+\n\t "))
def test_any_text_is_a_recipe_or_a_config_error(text: str) -> None:
    _never_another_error(text)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_a_mutated_preset_is_a_recipe_or_a_config_error(data: st.DataObject) -> None:
    text = read_preset(data.draw(st.sampled_from(preset_names())))
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(0, len(text)))
        end = min(len(text), start + data.draw(st.integers(0, 8)))
        text = text[:start] + data.draw(st.text(max_size=6)) + text[end:]
    _never_another_error(text)


leaves = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
names = st.sampled_from(["prune", "scale", "finetune", "match", "first", "ratio", "x", "epochs"])
values = st.recursive(
    leaves | names,
    lambda v: st.lists(v, max_size=3) | st.dictionaries(names, v, max_size=3),
    max_leaves=8,
)
keys = ["version", "model", "inputs", "data", "target", "limits", "adjust", "base"]


@settings(max_examples=150, deadline=None)
@given(st.dictionaries(st.sampled_from(keys), values), st.lists(values, max_size=3))
def test_any_values_under_known_keys_are_a_recipe_or_a_config_error(
    top: dict[str, object], steps: list[object]
) -> None:
    _never_another_error(yaml.safe_dump({**top, "adjust": steps}))
