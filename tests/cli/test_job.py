"""From flags and files to a recipe."""

from __future__ import annotations

import pico
import pytest
from modelspeed.cli.job import recipe_for
from modelspeed.cli.load_flags import LoadFlags
from modelspeed.configs.load import dump_recipe, parse_recipe
from modelspeed.configs.recipe import make_step
from modelspeed.core.errors import UsageError


def test_an_input_size_comes_first_and_needs_data_to_be_judged_by(tmp_path):
    checkpoint = pico.project(tmp_path)
    made = recipe_for(LoadFlags(checkpoint, input_size="9"), "tune")
    assert [s.name for s in made.adjust][:2] == ["input_size", "prune"]
    assert made.adjust[0] == make_step("input_size", size=9)
    blind = pico.RECIPE.replace('data: {factory: "data.py:loaders"}', "")
    (tmp_path / "modelspeed.yaml").write_text(blind)
    with pytest.raises(UsageError, match="no data to measure it by"):
        recipe_for(LoadFlags(checkpoint, input_size="9"), "tune")
    made = recipe_for(LoadFlags(checkpoint, input_size="9", without_data=True), "tune")
    assert made.adjust[0].name == "input_size"


def blind(tmp_path, steps, mode="apply", allowed=True):
    recipe = tmp_path / "only.yaml"
    recipe.write_text(f"version: 1\nadjust: {steps}\n")
    return recipe_for(LoadFlags(tmp_path / "x.pt", config=recipe, without_data=allowed), mode)


def test_steps_that_all_want_data_are_named_where_there_is_none(tmp_path):
    with pytest.raises(UsageError, match=r"without data none of its steps runs \(`finetune`\)"):
        blind(tmp_path, "[finetune]")


@pytest.mark.parametrize("steps", ["[fold_batchnorm, precision]", "[quantize, fold_batchnorm]"])
def test_apply_refuses_to_leave_out_what_costs_accuracy_unless_it_is_allowed(tmp_path, steps):
    with pytest.raises(UsageError, match=r"`adjust\[[01]\]` \(`(precision|quantize)`\) may cost"):
        blind(tmp_path, steps, allowed=False)


def test_a_step_that_cannot_run_keeps_its_place_and_its_reason(tmp_path):
    steps = "[flush_subnormals, quantize: {scheme: int8_static}, fold_batchnorm, finetune]"
    steps = steps.replace("quantize: {scheme: int8_static}", "{quantize: {scheme: int8_static}}")
    made = blind(tmp_path, steps)
    names = [(step.name, bool(reason)) for step, reason in made.every_step()]
    assert names == [("flush_subnormals", False), ("quantize", True),
                     ("fold_batchnorm", False), ("finetune", True)]  # fmt: skip
    assert [s.name for s in made.adjust] == ["flush_subnormals", "fold_batchnorm"]
    # The artifact's recipe is what was asked for.
    again = parse_recipe(dump_recipe(made), "again", tmp_path)
    assert [s.name for s in again.adjust] == [name for name, _ in names]


def test_tune_without_data_says_of_each_lossy_step_why_it_does_not_run(tmp_path):
    made = blind(tmp_path, "[prune, fold_batchnorm]", "tune", allowed=False)
    assert [(s.name, "--without-data" in r) for s, r in made.every_step()] == [
        ("prune", True), ("fold_batchnorm", False)
    ]  # fmt: skip
