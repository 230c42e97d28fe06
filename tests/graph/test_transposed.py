"""Transposed convolutions: their weight turned, what an output reads, batch norms behind them."""

from __future__ import annotations

import pytest
import torch
from modelspeed.adjusters.fold_batchnorm import plan
from modelspeed.adjusters.plan import Context
from modelspeed.graph.analysis.groups import analyze, keep_units
from modelspeed.graph.capture import capture, clone
from modelspeed.graph.edits.apply import FoldBatchNorm, Slice, apply, kept_indices
from modelspeed.graph.layers import outputs_at, sample_positions
from modelspeed.graph.lowering.lower import folded_copy
from modelspeed.graph.transposed import (
    forward_weight,
    transposed_layers_of,
    transposed_patches_at,
    turned,
)
from modelspeed.training.compensation import compensate
from modelspeed.tuning.tried_steps import why_unfitted
from torch import nn

torch.set_num_threads(1)
KINDS = {
    "plain": {"kernel_size": 3},
    "upsampling": {"kernel_size": 2, "stride": 2},
    "overlapping": {"kernel_size": 4, "stride": 2, "padding": 1, "bias": False},
    "odd": {"kernel_size": (3, 5), "stride": (2, 3), "padding": (1, 2), "output_padding": (1, 0)},
    "dilated": {"kernel_size": 3, "dilation": 2, "stride": 2},
    "grouped": {"kernel_size": 3, "stride": 2, "groups": 2, "bias": False},
}


def decoder(kind: str) -> nn.Sequential:
    torch.manual_seed(0)
    more = KINDS[kind]
    made = nn.Sequential(
        nn.Conv2d(1, 12, 3, padding=1), nn.ReLU(),
        nn.ConvTranspose2d(12, 8, **more), nn.BatchNorm2d(8), nn.ReLU(),
        nn.ConvTranspose2d(8, 3, 2, stride=2),
    )  # fmt: skip
    with torch.no_grad():
        made[3].running_mean.normal_(0, 0.2)
        made[3].running_var.uniform_(0.5, 2.0)
        made[3].weight.normal_(1.0, 0.3)
        made[3].bias.normal_(0, 0.2)
    return made.eval()


def images(count: int, seed: int) -> torch.Tensor:
    return torch.randn(count, 1, 7, 7, generator=torch.Generator().manual_seed(seed))


def test_turning_twice_gives_the_weight_back():
    weight = torch.randn(6, 4, 3, 2)
    for groups in (1, 2, 3):
        there = turned(weight, groups)
        assert there.shape == (4 * groups, 6 // groups, 3, 2)
        assert torch.equal(turned(there, groups), weight)


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_patches_times_the_turned_weight_are_the_outputs(kind):
    module = capture(decoder(kind), (images(2, 1),))
    layer = next(iter(transposed_layers_of(module)))
    x = torch.randn(3, 12, 7, 7)
    made = decoder(kind)[2]
    result = made(x).detach()
    where = sample_positions(layer, result, 200, seed=0)
    weight = forward_weight(module, layer)
    patches = transposed_patches_at(layer, x, weight.shape[2:], where)
    apart = patches.reshape(len(where), layer.groups, -1).transpose(0, 1)
    found = apart @ weight.reshape(layer.groups, 8 // layer.groups, -1).transpose(1, 2)
    found = found.transpose(0, 1).reshape(len(where), 8)
    found = found if made.bias is None else found + made.bias
    torch.testing.assert_close(found, outputs_at(layer, result, where), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_batch_norms_behind_them_fold_to_equal_outputs(kind):
    module = capture(decoder(kind), (images(2, 1),))
    made = plan(Context(module, ()), None)
    assert len(made.edits) == 1 and not made.left_alone
    for folded in (apply(clone(module), made.edits), folded_copy(module)):
        assert "batch_norm" not in folded.code
        new = images(3, 2)
        torch.testing.assert_close(folded(new), module(new), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("space", [1, 3])
def test_signals_and_volumes_fold_as_well(space):
    torch.manual_seed(0)
    layer = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)[space - 1]
    norm = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)[space - 1]
    net = nn.Sequential(layer(4, 6, 3, stride=2, groups=2), norm(6)).eval()
    net[1].running_mean.normal_()
    net[1].weight.data.normal_()
    x = torch.randn(2, 4, *(5,) * space)
    module = capture(net, (x,))
    folded = folded_copy(module)
    assert "batch_norm" not in folded.code
    torch.testing.assert_close(folded(x), net(x), rtol=1e-4, atol=1e-5)


def test_a_convolution_padded_to_the_same_size_folds_as_well():
    net = nn.Sequential(nn.Conv2d(1, 4, 3, padding="same"), nn.BatchNorm2d(4)).eval()
    net[1].running_mean.normal_()
    module = capture(net, (images(2, 1),))
    folded = folded_copy(module)
    assert "batch_norm" not in folded.code
    torch.testing.assert_close(folded(images(2, 1)), net(images(2, 1)), rtol=1e-4, atol=1e-5)


def error(a, b, x):
    return float((a(x) - b(x)).square().mean().detach())


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_a_pruned_decoder_comes_closer_to_the_original(kind):
    original = capture(decoder(kind), (images(2, 1),))
    analysis = analyze(original)
    dropped = {g.name: range(g.size // 2) for g in analysis.prunable}
    assert sum(len(d) for d in dropped.values()) > 4
    edits = keep_units(analysis, dropped)
    pruned = apply(clone(original), edits)
    fitted = clone(pruned)
    train = [(images(32, s), None) for s in range(3)]
    assert compensate(fitted, original, train, kept_indices(edits)) == 2
    assert error(fitted, original, images(32, 9)) < 0.8 * error(pruned, original, images(32, 9))


def test_the_reason_for_fitting_nothing_is_the_true_one():
    fold, cut = FoldBatchNorm("batch_norm"), Slice("2.weight", 1, (0,))
    assert why_unfitted([]) == "nothing was removed before it"
    assert "shared or computed" in why_unfitted([cut])
    assert "folded already" in why_unfitted([cut, fold])


def test_a_depthwise_one_that_lost_whole_groups_is_fitted():
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(1, 8, 3), nn.ConvTranspose2d(8, 8, 2, stride=2, groups=8), nn.Conv2d(8, 3, 1)
    ).eval()
    original = capture(net, (images(2, 1),))
    analysis = analyze(original)
    edits = keep_units(analysis, {g.name: [1, 3, 4] for g in analysis.prunable})
    pruned = apply(clone(original), edits)
    fitted = clone(pruned)
    train = [(images(32, s), None) for s in range(3)]
    assert compensate(fitted, original, train, kept_indices(edits)) >= 1
    assert error(fitted, original, images(32, 9)) < 0.9 * error(pruned, original, images(32, 9))
