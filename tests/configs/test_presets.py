from __future__ import annotations

from pathlib import Path

import pytest
from modelspeed.configs.load import dump_recipe, parse_recipe
from modelspeed.configs.order import check_order
from modelspeed.configs.presets import preset_names, read_preset
from modelspeed.configs.recipe import DataSpec
from modelspeed.configs.settings import SETTINGS
from modelspeed.core.errors import UsageError


def test_the_presets_are_the_files_of_the_folder() -> None:
    assert preset_names() == ["balanced", "int8", "lossless", "low_rank", "scale_half",
                              "shallow", "smaller_input", "sparsity_2_4"]  # fmt: skip


@pytest.mark.parametrize("name", preset_names())
def test_each_preset_is_valid_in_good_order_and_round_trips(name: str) -> None:
    recipe = parse_recipe(read_preset(name), name, Path("."))
    assert recipe.adjust
    assert parse_recipe(dump_recipe(recipe), name, Path(".")) == recipe
    with_data = recipe.model_copy(update={"data": DataSpec(factory="d.py:f")})
    check_order(with_data, "tune")


def test_every_adjuster_has_a_preset_that_uses_it() -> None:
    recipes = [parse_recipe(read_preset(n), n, Path(".")) for n in preset_names()]
    assert {s.name for r in recipes for s in r.adjust} == set(SETTINGS)


def test_the_lossless_preset_needs_no_data_under_either_verb() -> None:
    recipe = parse_recipe(read_preset("lossless"), "lossless", Path("."))
    check_order(recipe, "tune")
    check_order(recipe, "apply")


def test_the_teaching_preset_says_that_it_changes_no_latency() -> None:
    assert "changes no latency" in read_preset("scale_half")


@pytest.mark.parametrize("name", ["balancd", "", "../settings", "balanced.yaml"])
def test_an_unknown_preset_is_refused_with_the_names(name: str) -> None:
    with pytest.raises(UsageError, match="balanced, int8, lossless, low_rank, scale_half"):
        read_preset(name)


def test_the_nearest_preset_is_offered() -> None:
    with pytest.raises(UsageError, match="did you mean `balanced`"):
        read_preset("balancd")
