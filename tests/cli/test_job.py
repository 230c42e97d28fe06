"""From flags and files to a recipe."""

from __future__ import annotations

import pico
import pytest
from modelspeed.cli.job import Asked, recipe_for
from modelspeed.configs.recipe import make_step
from modelspeed.core.errors import UsageError


def test_an_input_size_comes_first_and_needs_data_to_be_judged_by(tmp_path):
    checkpoint = pico.project(tmp_path)
    made = recipe_for(Asked(checkpoint, input_size="9"), "tune")
    assert [s.name for s in made.adjust][:2] == ["input_size", "prune"]
    assert made.adjust[0] == make_step("input_size", size=9)
    blind = pico.RECIPE.replace('data: {factory: "data.py:loaders"}', "")
    (tmp_path / "modelspeed.yaml").write_text(blind)
    with pytest.raises(UsageError, match="no data to measure it by"):
        recipe_for(Asked(checkpoint, input_size="9"), "tune")
    made = recipe_for(Asked(checkpoint, input_size="9", without_data=True), "tune")
    assert made.adjust[0].name == "input_size"


@pytest.mark.parametrize(("step", "allowed"), [("prune", False), ("finetune", True)])
def test_steps_that_all_want_data_are_named_where_there_is_none(tmp_path, step, allowed):
    recipe = tmp_path / "only.yaml"
    recipe.write_text(f"version: 1\nadjust: [{step}]\n")
    asked = Asked(tmp_path / "x.pt", config=recipe, without_data=allowed)
    with pytest.raises(UsageError, match=rf"without data none of its steps runs \(`{step}`\)"):
        recipe_for(asked, "apply")
