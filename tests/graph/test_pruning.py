"""Pruned nets equal the original whose consumers ignore the removed channels."""

from __future__ import annotations

import pico
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from modelspeed.core.errors import EditError
from modelspeed.graph.analysis.groups import analyze, keep_units
from modelspeed.graph.capture import capture, clone, export_program, module_of, tensor_at
from modelspeed.graph.edits.apply import apply, edits_from_json, edits_to_json

BLOCKS = sorted(pico.BLOCKS)


def masked(module, analysis, dropped):
    """The unpruned graph with the dropped units' columns zeroed in every consumer."""
    made = clone(module)
    for group in analysis.prunable:
        for member in group.members:
            tensor = tensor_at(made, member.param)
            if member.dim == 1 and tensor.dim() >= 2:
                gone = [i for u in dropped.get(group.name, ()) for i in member.indices[u]]
                tensor.data[:, gone] = 0
    return made


@settings(max_examples=60, deadline=None)
@given(
    blocks=st.lists(st.sampled_from(BLOCKS), max_size=3),
    side=st.sampled_from([1, 2]),
    view=st.booleans(),
    data=st.data(),
)
@pytest.mark.long
def test_a_pruned_net_equals_the_original_that_ignores_the_dropped_channels(
    blocks, side, view, data
):
    module = capture(pico.net(blocks, side=side, view=view), (pico.images(),))
    analysis = analyze(module)
    dropped = {
        g.name: data.draw(st.lists(st.integers(0, g.size - 1), unique=True, max_size=g.size - 1))
        for g in analysis.prunable
    }
    edits = keep_units(analysis, dropped)
    assert edits_from_json(edits_to_json(edits)) == edits
    pruned = apply(clone(module), edits)
    x = pico.images(3)
    torch.testing.assert_close(
        pruned(x), masked(module, analysis, dropped)(x), rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize("block", BLOCKS)
def test_every_block_has_channels_to_drop_and_the_result_exports_again(block):
    module = capture(pico.net([block]), (pico.images(),))
    analysis = analyze(module)
    assert analysis.prunable, [g.frozen for g in analysis.groups]
    assert not analysis.unknown_ops
    edits = keep_units(analysis, {g.name: [0] for g in analysis.prunable})
    pruned = apply(clone(module), edits)
    again = module_of(export_program(pruned, (pico.images(),)))
    for batch in (1, 5):
        torch.testing.assert_close(again(pico.images(batch)), pruned(pico.images(batch)))
    assert sum(p.numel() for p in again.parameters()) < sum(p.numel() for p in module.parameters())


def test_inputs_and_outputs_of_the_model_keep_their_shapes():
    module = capture(pico.net([]), (pico.images(),))
    for group in analyze(module).prunable:
        assert ("head.weight", 0) not in {(m.param, m.dim) for m in group.members}
        assert ("stem.weight", 1) not in {(m.param, m.dim) for m in group.members}


def test_concatenated_branches_are_groups_of_their_own():
    module = capture(pico.net(["branches"]), (pico.images(),))
    sizes = {g.name: g.size for g in analyze(module).prunable}
    assert sizes["blocks.0.a"] == 3 and sizes["blocks.0.b"] == 5


def test_an_operator_without_a_rule_freezes_what_reaches_it_and_is_named():
    class Odd(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = torch.nn.Conv2d(1, 4, 3)
            self.head = torch.nn.Linear(4, 2)

        def forward(self, x):
            return self.head(torch.renorm(self.conv(x).mean((2, 3)), 2, 0, 1.0))

    analysis = analyze(capture(Odd(), (pico.images(),)))
    assert "renorm.default" in analysis.unknown_ops
    frozen = next(
        g for g in analysis.groups if ("conv.weight", 0) in {(m.param, m.dim) for m in g.members}
    )
    assert "renorm" in (frozen.frozen or "")


def test_dropping_all_units_or_an_unknown_group_is_refused():
    analysis = analyze(capture(pico.net([]), (pico.images(),)))
    group = analysis.prunable[0]
    with pytest.raises(EditError, match="would lose all"):
        keep_units(analysis, {group.name: range(group.size)})
    with pytest.raises(EditError, match="not a prunable group"):
        keep_units(analysis, {"nobody": [0]})


def test_edits_of_an_unknown_kind_or_shape_are_refused():
    with pytest.raises(EditError, match="unknown kind"):
        edits_from_json([{"edit": "Explode"}])
    with pytest.raises(EditError, match="does not fit"):
        edits_from_json([{"edit": "Slice", "param": "x"}])
