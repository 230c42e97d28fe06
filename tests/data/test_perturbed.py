"""Training examples changed a little, and judged by a model's own answers."""

from __future__ import annotations

import pytest
import torch
from modelspeed.configs.recipe import AugmentSpec
from modelspeed.data.answers import Answered, agreed
from modelspeed.data.perturbed import Perturbed
from torch import nn

IMAGES, LABELS = torch.randn(6, 1, 12, 12), torch.arange(6)


def passed(inputs, spec=None, seed=0):
    return [next(iter(x)) for x, _ in Perturbed([(inputs, LABELS)] * 2, spec, seed)]


def test_images_move_by_a_pixel_or_so_the_same_in_each_pass():
    first, second = passed(IMAGES), passed(IMAGES)
    assert all(map(torch.equal, first, second)) and not torch.equal(first[0], first[1])
    assert not torch.equal(first[0], IMAGES) and not torch.equal(
        first[0], passed(IMAGES, seed=1)[0]
    )
    inner = IMAGES[:, :, 1:-1, 1:-1]
    for image, moved in zip(inner, first[0], strict=True):
        windows = (moved[:, y : y + 10, x : x + 10] for y in range(3) for x in range(3))
        assert any(torch.equal(image, window) for window in windows)


def test_the_recipes_own_changes_are_taken_where_it_has_some():
    flipped = passed(IMAGES, AugmentSpec(flip=True))[0]
    same = [torch.equal(a, b) for a, b in zip(flipped, IMAGES, strict=True)]
    mirrored = [torch.equal(a, b.flip(2)) for a, b in zip(flipped, IMAGES, strict=True)]
    assert all(a or b for a, b in zip(same, mirrored, strict=True)) and any(mirrored)


def test_other_values_get_some_noise_and_whole_numbers_none():
    rows = torch.randn(6, 20)
    apart = (passed(rows)[0] - rows).std() / rows.std()
    assert 0.02 < float(apart) < 0.1
    assert torch.equal(passed(LABELS)[0], LABELS)


@pytest.mark.parametrize("width", [1, 3])
def test_a_model_agrees_with_itself(width):
    torch.manual_seed(0)
    model, other = nn.Linear(4, width), nn.Linear(4, width)
    x = torch.randn(6, 4)
    (batch,) = Answered([(x, torch.zeros(6))], model, "cpu")
    assert agreed(model(x), batch[1]) == pytest.approx(1.0)
    assert 0.0 <= agreed(other(x), batch[1]) < 1.0
    assert batch[1].is_floating_point() == (width == 1)
