from __future__ import annotations

import pico
import pytest
import torch
from modelspeed.adjusters.compensate import plan
from modelspeed.adjusters.plan import Context
from modelspeed.configs.recipe import make_step
from modelspeed.graph.analysis.groups import analyze, keep_units
from modelspeed.graph.capture import capture, clone
from modelspeed.graph.edits.apply import apply, kept_indices
from modelspeed.training.compensation import compensate
from torch import nn

SETTINGS = make_step("compensate").settings


def error(a, b, batches):
    return float(sum((a(x) - b(x)).square().mean() for x, _ in batches).detach())


def test_it_wants_data():
    module = capture(pico.net([]), (pico.images(),))
    without = plan(Context(module, (pico.images(),)), SETTINGS)
    assert not without.is_training and "no training data" in without.left_alone[0].reason
    assert plan(Context(module, (pico.images(),), [(pico.images(), None)]), SETTINGS).is_training


@pytest.mark.parametrize("block", sorted(pico.BLOCKS))
def test_outputs_on_new_data_come_closer_to_the_original(block):
    original = capture(pico.net([block]), (pico.images(),))
    analysis = analyze(original)
    dropped = {g.name: range(g.size // 2) for g in analysis.prunable}
    edits = keep_units(analysis, dropped)
    pruned = apply(clone(original), edits)
    fitted = clone(pruned)
    train, new = ([(pico.images(32, s), None) for s in seeds] for seeds in (range(4), (9,)))
    assert compensate(fitted, original, train, kept_indices(edits)) >= 2
    assert error(fitted, original, new) < 0.5 * error(pruned, original, new)


def test_channels_that_copy_others_are_made_up_for_exactly():
    class Copies(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Conv2d(1, 8, 3, padding=1), nn.Conv2d(8, 3, 3, padding=1)
            with torch.no_grad():
                self.a.weight[4:], self.a.bias[4:] = 2 * self.a.weight[:4], 2 * self.a.bias[:4]

        def forward(self, x):
            return self.b(torch.relu(self.a(x)))

    torch.manual_seed(0)
    original = capture(Copies().eval(), (pico.images(),))
    edits = keep_units(analyze(original), {"a": [4, 5, 6, 7]})
    fitted = apply(clone(original), edits)
    train = [(pico.images(16, s), None) for s in range(4)]
    compensate(fitted, original, train, kept_indices(edits), ridge=1e-9)
    torch.testing.assert_close(
        fitted(pico.images(3, 7)), original(pico.images(3, 7)), rtol=1e-3, atol=1e-3
    )


def test_a_weight_that_an_embedding_shares_is_not_fitted():
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.token, self.up, self.down = nn.Embedding(9, 6), nn.Linear(6, 8), nn.Linear(8, 6)
            self.head = nn.Linear(6, 9, bias=False)
            self.head.weight = self.token.weight

        def forward(self, ids):
            return self.head(self.down(torch.relu(self.up(self.token(ids)))))

    torch.manual_seed(0)
    ids = torch.randint(0, 9, (32, 4))
    original = capture(Tied().eval(), (ids[:2],))
    edits = keep_units(analyze(original), {"up": [0, 1, 2]})
    fitted = apply(clone(original), edits)
    assert compensate(fitted, original, [(ids, None)], kept_indices(edits)) == 1
    assert torch.equal(fitted.get_parameter("token.weight"), original.get_parameter("token.weight"))


def test_slices_of_slices_are_traced_to_the_original():
    module = capture(pico.net([]), (pico.images(),))
    first = keep_units(analyze(module), {"stem": [0, 3]})
    once = apply(clone(module), first)
    both = [*first, *keep_units(analyze(once), {"stem": [0]})]
    assert kept_indices(both)[("stem.weight", 0)] == (2, 4, 5, 6, 7)
