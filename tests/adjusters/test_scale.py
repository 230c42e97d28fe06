from __future__ import annotations

import pico
from modelspeed.adjusters.plan import Context
from modelspeed.adjusters.scale import plan
from modelspeed.configs.recipe import make_step
from modelspeed.graph.capture import capture, clone
from modelspeed.graph.edits.apply import ScaleParameter, apply


def test_the_first_layers_are_multiplied():
    module = capture(pico.net(["residual"]), (pico.images(),))
    made = plan(Context(module, ()), make_step("scale", factor=0.5, first=2).settings)
    assert made.edits == (
        ScaleParameter("stem.weight", 0.5),
        ScaleParameter("blocks.0.conv1.weight", 0.5),
    )
    scaled = apply(clone(module), made.edits)
    assert scaled.get_parameter("stem.weight").equal(module.get_parameter("stem.weight") * 0.5)


def test_patterns_choose_layers():
    module = capture(pico.net(["residual"]), (pico.images(),))
    made = plan(Context(module, ()), make_step("scale", factor=2.0, match=("head",)).settings)
    assert made.edits == (ScaleParameter("head.weight", 2.0),)
