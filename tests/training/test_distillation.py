"""The loss of fine-tuning on outputs of every shape."""

from __future__ import annotations

import pytest
import torch
from modelspeed.configs.recipe import make_step
from modelspeed.core.errors import DataError
from modelspeed.core.model_io import Inputs
from modelspeed.graph.blocks import residual_blocks
from modelspeed.graph.capture import capture, clone
from modelspeed.graph.edits.apply import apply, leave_out
from modelspeed.graph.train_mode import training
from modelspeed.profiling.losses import task_loss
from modelspeed.training.distillation import DistillationLoss
from torch import nn


def objective(student, teacher, **settings):
    return DistillationLoss(student, teacher, make_step("finetune", **settings).settings)


@pytest.mark.parametrize(
    ("outputs", "targets"),
    [
        (torch.zeros(4, 1), torch.zeros(4)),
        (torch.zeros(4, 3), torch.zeros(4, 2, dtype=torch.int64)),
        (torch.zeros(4, 1), torch.ones(4, dtype=torch.int64)),
        (torch.zeros(4), torch.zeros(4, dtype=torch.int64)),
    ],
)
def test_targets_that_do_not_fit_get_a_sentence(outputs, targets):
    with pytest.raises(DataError, match="training needs"):
        task_loss(outputs, targets)


def test_logits_of_tokens_and_of_pixels_are_both_understood():
    logits, classes = torch.randn(2, 5, 7), torch.randint(0, 7, (2, 5))
    wanted = nn.functional.cross_entropy(logits.flatten(0, 1), classes.flatten())
    torch.testing.assert_close(task_loss(logits, classes), wanted)
    torch.testing.assert_close(task_loss(logits.movedim(-1, 1), classes), wanted)


def test_distillation_weighs_the_same_whatever_the_number_of_pixels():
    torch.manual_seed(0)
    net, pixels = nn.Conv2d(3, 4, 1), torch.randn(8, 3, 1, 1)
    losses = []
    for size in (1, 16):
        x = pixels.expand(8, 3, size, size)
        teacher = capture(net, (x,))
        student = clone(teacher)
        student.get_parameter("weight").data *= 0.5
        loss = objective(student, teacher, alpha=1.0)
        losses.append(loss(Inputs.of(x), torch.zeros(8, size, size, dtype=torch.int64)))
    torch.testing.assert_close(*losses)


def test_a_block_with_in_place_activations_around_it_can_be_left_out_and_trained():
    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.act = nn.Linear(4, 4), nn.Linear(4, 4), nn.ReLU(inplace=True)

        def forward(self, x):
            y = self.b(self.act(self.a(x)))
            y += x
            return self.act(y)

    net = nn.Sequential(nn.Linear(4, 4), Block(), Block(), Block(), nn.Linear(4, 2)).eval()
    x = torch.randn(8, 4)
    teacher = capture(net, (x,))
    blocks = residual_blocks(teacher)
    assert len(blocks) == 3
    for gone in (blocks[1:2], blocks[1:], blocks):
        student = apply(clone(teacher), leave_out(gone))
        for parameter in student.parameters():
            parameter.requires_grad_(True)
        loss = objective(student, teacher, alpha=0.5)
        loss(Inputs.of(x), torch.zeros(8, dtype=torch.int64)).backward()
        assert all(p.grad is not None for p in student.parameters())


def test_what_trains_by_itself_goes_on_as_it_was():
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, track_running_stats=False))
    module = capture(net.eval(), (torch.randn(2, 3, 5, 5),))
    x = torch.randn(2, 3, 5, 5)
    before = module(x)
    with training(module):
        module(x)
    torch.testing.assert_close(module(x), before)
