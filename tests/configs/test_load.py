from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from modelspeed.configs.load import dump_recipe, load_recipe, parse_recipe
from modelspeed.configs.recipe import Recipe, make_step
from modelspeed.configs.settings import Finetune, Prune, Scale
from modelspeed.core.errors import ConfigError

BASE = Path("/base")
ISSUE = """\
version: 1
model: {factory: "model.py:build", args: {width: 16}}     # relative to this file
inputs: [{shape: [1, 1, 32, 32], dtype: float32}]
data: {factory: "data.py:loaders", metric: accuracy}
target: {ms: 5.0, percentile: 50, batch: 1}
limits: {max_drop: 0.01, minutes: 20}
adjust:
  - fold_batchnorm
  - prune: {max_ratio: 0.8, importance: fisher, match: {"stem.*": skip}}
  - finetune: {epochs: 2, distill: true}
"""


def problems(text: str) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as caught:
        parse_recipe(text, "r.yaml", BASE)
    return caught.value.problems


def step_problems(step: str) -> tuple[str, ...]:
    return problems(f"version: 1\nadjust:\n  - {step}\n")


def test_the_recipe_of_the_issue_is_read_as_written() -> None:
    recipe = parse_recipe(ISSUE, "r.yaml", BASE)
    assert recipe.model is not None and recipe.model.args == {"width": 16}
    assert recipe.inputs[0].shape == (1, 1, 32, 32)
    assert recipe.target.ms == 5.0 and recipe.limits.minutes == 20.0
    assert [s.name for s in recipe.adjust] == ["fold_batchnorm", "prune", "finetune"]
    prune = recipe.adjust[1].settings
    assert isinstance(prune, Prune) and prune.match == {"stem.*": "skip"}
    assert recipe.base == BASE and recipe.source == "r.yaml"


def test_every_problem_is_shown_at_once_in_file_order_with_its_line() -> None:
    found = problems(
        "version: 2\n"
        "targt: {}\n"
        "target:\n"
        "  ms: -1\n"
        "adjust:\n"
        "  - prune:\n"
        "      max_ratio: 1.4\n"
        "  - finetun\n"
    )
    assert found == (
        "`r.yaml:1`: `version` is 2; it must be 1.",
        "`r.yaml:2`: the recipe has the unknown key `targt`; did you mean `target`? Allowed: "
        "version, model, inputs, ignore, data, target, limits, adjust.",
        "`r.yaml:4`: `target.ms` is -1; it must be greater than 0.",
        "`r.yaml:7`: `adjust[0].prune.max_ratio` is 1.4; it must be less than 1.",
        "`r.yaml:8`: `adjust[1]` is the unknown adjuster `finetun`; did you mean `finetune`? "
        "Allowed: fold_batchnorm, channels_last, input_size, flush_subnormals, drop_dead, prune, "
        "drop_blocks, compensate, low_rank, quantize, precision, sparsity_2_4, scale, finetune.",
    )


@pytest.mark.parametrize(
    ("step", "says"),
    [
        ("prune: {max_ration: 0.4}", "did you mean `max_ratio`?"),
        ("prune: {ratio: true}", "`adjust[0].prune.ratio` is true; it must be a number."),
        ("prune: {ratio: .nan}", "must be a finite number"),
        ("prune: {ratio: '0.3'}", "is '0.3'; it must be a number."),
        ("prune: {round_to: 1.5}", "must be a whole number"),
        ("prune: {importance: fischer}", "did you mean `fisher`?"),
        ("prune: {match: {'a.*': skipp}}", "`adjust[0].prune.match['a.*']` is 'skipp'"),
        ("prune: {match: {a: 1}}", "must be `skip` or a ratio from 0 to less than 1."),
        ("fold_batchnorm: {x: 1}", "there is nothing to set here."),
        ("scale", "`adjust[0].scale.factor` is missing"),
        ("scale: {factor: 0.5}", "either `match` or `first`"),
        ("scale: {factor: 0.5, match: [a], first: 1}", "either `match` or `first`"),
        ("scale: {factor: .inf, first: 1}", "must be a finite number"),
        ("finetune: {distill: 1}", "must be true or false"),
        ("finetune: 3", "`adjust[0].finetune` is 3; it must be a mapping"),
        ("{prune: , scale: }", "a mapping of 2 keys; it must be a name or one"),
        ("7", "`adjust[0]` is 7; it must be a name or one"),
    ],
)
def test_a_bad_step_is_refused_with_what_is_allowed(step: str, says: str) -> None:
    found = step_problems(step)
    assert len(found) == 1
    assert found[0].startswith("`r.yaml:3`: ") and says in found[0]


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("base: x", "unknown key `base`"),
        ("source: x", "unknown key `source`"),
        ("adjust: prune", "it must be a list of steps"),
        ("adjust:", "`adjust` is null"),
        ("inputs: [{shape: []}]", "at least 1 entry"),
        ("inputs: [{shape: [1, 0]}]", "`inputs[0].shape[1]` is 0; it must be at least 1."),
        ("inputs: [{shape: [1], dtype: float3}]", "did you mean `float32`?"),
        ("inputs: {shape: [1]}", "must be a list"),
        ("data: {factory: data.py}", "it must be `FILE.py:NAME`"),
        ("data: {factory: 'data.py:a b'}", "it must be `FILE.py:NAME`"),
        ("data: {factory: 'd.py:f', metric: acc}", "it must be one of accuracy"),
        ("data: {metric: accuracy}", "`data.factory` is missing"),
        ("model: {factory: 'm.py:f', arg: {}}", "did you mean `args`?"),
        ("limits:", "`limits` is null; it must be a mapping"),
        ("target: {batch: true}", "must be a whole number"),
        ("target: {percentile: 100}", "must be at most 99.9"),
    ],
)
def test_a_bad_field_is_refused_with_what_is_allowed(line: str, says: str) -> None:
    found = problems(f"version: 1\n{line}\n")
    assert len(found) == 1
    assert found[0].startswith("`r.yaml:2`: ") and says in found[0]


@pytest.mark.parametrize("version", ["true", "1.0", "'1'", "null"])
def test_only_the_number_one_is_a_version(version: str) -> None:
    assert len(problems(f"version: {version}")) == 1


def test_a_missing_version_says_what_to_write() -> None:
    assert problems("adjust: [prune]") == ("`r.yaml:1`: `version` is missing; write `version: 1`.",)


def test_the_order_of_match_patterns_is_kept() -> None:
    recipe = parse_recipe(
        "version: 1\nadjust: [prune: {match: {'b.1': 0.5, 'b.*': skip, '*': 0.1}}]", "r", BASE
    )
    prune = recipe.adjust[0].settings
    assert isinstance(prune, Prune) and list(prune.match) == ["b.1", "b.*", "*"]


def test_scientific_notation_is_a_number_and_on_is_text() -> None:
    text = "version: 1\nmodel: {factory: 'm.py:f', args: {on: off}}\nadjust: [finetune: {lr: 1e-3}]"
    recipe = parse_recipe(text, "r", BASE)
    finetune = recipe.adjust[0].settings
    assert isinstance(finetune, Finetune) and finetune.lr == 0.001
    assert recipe.model is not None and recipe.model.args == {"on": "off"}


def test_a_file_is_read_with_its_folder_as_base_and_a_byte_order_mark(tmp_path: Path) -> None:
    path = tmp_path / "größe.yaml"
    path.write_bytes(b"\xef\xbb\xbfversion: 1\n")
    recipe = load_recipe(path)
    assert recipe.base == tmp_path and recipe.source == "größe.yaml"


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", b"#" * 1_000_001])
def test_a_file_that_is_no_short_text_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "r.yaml"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"not UTF-8|larger than"):
        load_recipe(path)


def test_a_missing_file_and_a_folder_are_config_errors(tmp_path: Path) -> None:
    for path in (tmp_path / "none.yaml", tmp_path):
        with pytest.raises(ConfigError, match="can't be read"):
            load_recipe(path)


def test_a_written_recipe_reads_back_the_same() -> None:
    recipe = parse_recipe(ISSUE, "r.yaml", BASE)
    assert parse_recipe(dump_recipe(recipe), "r.yaml", BASE) == recipe


def test_where_a_recipe_came_from_is_not_written() -> None:
    text = dump_recipe(parse_recipe(ISSUE, "secret-name.yaml", BASE))
    assert "secret-name" not in text and "/base" not in text


ratios = st.floats(0, 1, exclude_max=True)
prunes = st.builds(
    lambda **kw: make_step("prune", **kw),
    ratio=st.none() | ratios,
    match=st.dictionaries(
        st.text(st.characters(codec="utf-8")), st.just("skip") | ratios, max_size=4
    ),
)
scales = st.builds(
    lambda factor, match: make_step("scale", factor=factor, match=tuple(match)),
    factor=st.floats(allow_nan=False, allow_infinity=False),
    match=st.lists(st.text(st.characters(codec="utf-8")), min_size=1, max_size=3),
)


@settings(max_examples=60, deadline=None)
@given(st.lists(prunes | scales, max_size=3))
def test_any_recipe_survives_the_round_trip(steps: list[object]) -> None:
    recipe = Recipe(adjust=tuple(steps), base=BASE, source="r")  # type: ignore[arg-type]
    again = parse_recipe(dump_recipe(recipe), "r", BASE)
    assert again == recipe
    for before, after in zip(recipe.adjust, again.adjust, strict=True):
        if isinstance(before.settings, Prune) and isinstance(after.settings, Prune):
            assert list(before.settings.match) == list(after.settings.match)
        else:
            assert isinstance(after.settings, Scale)
