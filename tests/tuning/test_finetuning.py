from __future__ import annotations

import pico
import torch
from modelspeed.configs.recipe import make_step
from modelspeed.graph.capture import capture, clone
from modelspeed.tuning.finetuning import finetune, reestimate_batch_norm
from modelspeed.tuning.talk import Quiet

DATA = [(pico.images(8, seed), torch.arange(8) % 3) for seed in range(3)]


def closeness(teacher):
    return lambda m: -float((m(DATA[0][0]) - teacher(DATA[0][0])).square().mean().detach())


def test_training_towards_the_teacher_helps_and_ends_in_evaluation_mode():
    teacher = capture(pico.net(["residual"]), (pico.images(),))
    student = clone(teacher)
    for parameter in student.parameters():
        parameter.data.mul_(0.7)
    settings = make_step("finetune", epochs=8, lr=0.01, bn_batches=0, alpha=1.0).settings
    done = finetune(student, teacher, DATA, closeness(teacher), settings, Quiet())
    assert done.kept == "trained" and done.after > done.before
    assert torch.equal(student(DATA[0][0]), student(DATA[0][0]))


def test_a_training_that_harms_is_undone():
    teacher = capture(pico.net(["residual"]), (pico.images(),))
    student = clone(teacher)
    settings = make_step("finetune", epochs=1, lr=1.0, bn_batches=0, alpha=0.0).settings
    done = finetune(student, teacher, DATA, closeness(teacher), settings, Quiet())
    assert done.kept == "nothing"
    torch.testing.assert_close(student(DATA[0][0]), teacher(DATA[0][0]))


def test_batch_norm_statistics_become_the_mean_of_the_batches():
    module = capture(pico.net([]), (pico.images(),))
    reestimate_batch_norm(module, DATA, 3, "cpu")
    weight, bias = module.get_parameter("stem.weight"), module.get_parameter("stem.bias")
    means = [torch.nn.functional.conv2d(x, weight, bias, 2, 1).mean((0, 2, 3)) for x, _ in DATA]
    torch.testing.assert_close(module.get_buffer("bn.running_mean"), torch.stack(means).mean(0))
