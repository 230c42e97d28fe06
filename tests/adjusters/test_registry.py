"""Contracts that hold for every adjuster."""

from __future__ import annotations

from pathlib import Path

import pico
import pytest
import torch
from modelspeed.adjusters.plan import Context
from modelspeed.adjusters.registry import ADJUSTERS
from modelspeed.configs.recipe import make_step
from modelspeed.configs.settings import SETTINGS
from modelspeed.core.model_io import Inputs
from modelspeed.graph.capture import capture, clone
from modelspeed.graph.edits.apply import apply

FOLDER = Path(__file__).parents[2] / "adjusters"
HELPERS = {"__init__", "plan", "registry"}
NEUTRAL = {
    "prune": {"ratio": 0.0, "importance": "magnitude"},
    "scale": {"factor": 1.0, "first": 9},
    "drop_blocks": {"count": 0},
    "precision": {"dtype": "float32"},
    "low_rank": {"ratio": 1.0},
    "input_size": {"ratio": 1.0},
}


def test_every_file_is_registered_and_has_settings_and_a_test():
    files = {p.stem for p in FOLDER.glob("*.py")} - HELPERS
    assert files == set(ADJUSTERS) == set(SETTINGS)
    assert all(name == a.name for name, a in ADJUSTERS.items())
    assert {f"test_{n}" for n in files} <= {p.stem for p in Path(__file__).parent.glob("*.py")}


@pytest.mark.parametrize("name", sorted(ADJUSTERS))
def test_neutral_settings_leave_the_outputs_equal_and_planning_changes_nothing(name):
    module = capture(pico.net(["residual", "depthwise"]), (pico.images(),))
    before = {k: v.clone() for k, v in module.state_dict().items()}
    settings = make_step(name, **NEUTRAL.get(name, {})).settings
    plan = ADJUSTERS[name].plan(Context(module, Inputs.of(pico.images())), settings)
    assert all(torch.equal(v, before[k]) for k, v in module.state_dict().items())
    adjusted = apply(clone(module), plan.edits)
    torch.testing.assert_close(adjusted(pico.images()), module(pico.images()), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", sorted(ADJUSTERS))
def test_a_plan_trains_where_the_facts_say_so_and_there_is_data(name):
    module = capture(pico.net(["residual"]), (pico.images(),))
    settings = make_step(name, **NEUTRAL.get(name, {})).settings
    inputs, trains = Inputs((pico.images(),)), SETTINGS[name].facts.is_training
    for train in ([(inputs, torch.zeros(2, dtype=torch.long))], None):
        plan = ADJUSTERS[name].plan(Context(module, inputs, train), settings)
        assert plan.is_training is (trains and train is not None)
