from __future__ import annotations

import pico
from modelspeed.adjusters.flush_subnormals import plan
from modelspeed.adjusters.plan import Context
from modelspeed.graph.capture import capture
from modelspeed.graph.edits.apply import ZeroSubnormals, apply


def test_only_tensors_with_subnormals_are_flushed():
    module = capture(pico.net([]), (pico.images(),))
    assert plan(Context(module, ()), None).edits == ()
    module.get_parameter("stem.weight").data[0] = 1e-40
    made = plan(Context(module, ()), None)
    assert made.edits == (ZeroSubnormals("stem.weight"),)
    apply(module, made.edits)
    assert module.get_parameter("stem.weight")[0].abs().sum() == 0
    assert module.get_parameter("stem.weight")[1].abs().sum() > 0
