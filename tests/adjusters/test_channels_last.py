from __future__ import annotations

import pico
import torch
from modelspeed.adjusters.channels_last import plan
from modelspeed.adjusters.plan import Context
from modelspeed.graph.capture import capture
from modelspeed.graph.edits.apply import ToChannelsLast


def test_images_are_laid_out_as_nhwc_and_a_net_without_them_is_left_alone():
    module = capture(pico.net([]), (pico.images(),))
    assert plan(Context(module, ()), None).edits == (ToChannelsLast("x"),)
    flat = capture(torch.nn.Linear(3, 2), (torch.randn(2, 3),))
    made = plan(Context(flat, ()), None)
    assert made.edits == () and "no 2-d convolution" in made.left_alone[0].reason
