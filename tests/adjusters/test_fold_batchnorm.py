from __future__ import annotations

import pico
import torch
from modelspeed.adjusters.fold_batchnorm import plan
from modelspeed.adjusters.plan import Context
from modelspeed.graph.capture import capture, clone
from modelspeed.graph.edits.apply import apply


def test_folding_leaves_no_batch_norm_and_equal_outputs():
    module = capture(pico.net(["residual", "grouped"]), (pico.images(),))
    made = plan(Context(module, ()), None)
    assert len(made.edits) == 3
    folded = apply(clone(module), made.edits)
    assert "batch_norm" not in folded.code
    torch.testing.assert_close(folded(pico.images()), module(pico.images()), rtol=1e-4, atol=1e-5)
