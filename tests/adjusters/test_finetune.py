from __future__ import annotations

import pico
from modelspeed.adjusters.finetune import plan
from modelspeed.adjusters.plan import Context
from modelspeed.configs.recipe import make_step
from modelspeed.graph.capture import capture


def test_without_data_it_is_left_alone_with_the_reason():
    module = capture(pico.net([]), (pico.images(),))
    made = plan(Context(module, ()), make_step("finetune").settings)
    assert not made.is_training and "no training data" in made.left_alone[0].reason
    assert plan(Context(module, (), train=[]), make_step("finetune").settings).is_training
