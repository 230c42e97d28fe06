from __future__ import annotations

import time

import pico
import pytest
import torch
from modelspeed.configs.recipe import make_step
from modelspeed.core.errors import DataError
from modelspeed.core.progress import Silent
from modelspeed.data.load import several
from modelspeed.graph.capture import capture, clone
from modelspeed.training.distillation import DistillationLoss
from modelspeed.training.finetuning import finetune, reestimate_batch_norm
from modelspeed.training.trainer import RATES, Trainer

DATA = [(pico.images(8, seed), torch.arange(8) % 3) for seed in range(3)]


def closeness(teacher):
    return lambda m: -float((m(DATA[0][0]) - teacher(DATA[0][0])).square().mean().detach())


def trained(student, teacher, **settings):
    chosen = make_step("finetune", bn_batches=0, **settings).settings
    objective = DistillationLoss(student, teacher, chosen)
    return finetune(Trainer(objective, DATA, DATA[:1], closeness(teacher), chosen, Silent()))


def test_training_toward_the_teacher_helps_and_ends_in_evaluation_mode():
    teacher = capture(pico.net(["residual"]), (pico.images(),))
    student = clone(teacher)
    for parameter in student.parameters():
        parameter.data.mul_(0.7)
    done = trained(student, teacher, epochs=8, alpha=1.0)
    assert done.kept == "trained" and done.after > done.before and done.rate in RATES
    assert torch.equal(student(DATA[0][0]), student(DATA[0][0]))
    assert not any(p.requires_grad for p in student.parameters())


def test_a_training_that_harms_is_undone():
    teacher = capture(pico.net(["residual"]), (pico.images(),))
    student = clone(teacher)
    done = trained(student, teacher, epochs=1, lr=1.0, alpha=0.0)
    assert done.kept == "nothing"
    torch.testing.assert_close(student(DATA[0][0]), teacher(DATA[0][0]))


def test_a_rate_that_diverges_is_only_not_taken(monkeypatch):
    teacher = capture(pico.net(["residual"]), (pico.images(),))
    monkeypatch.setattr("modelspeed.training.trainer.RATES", (1e30, 1e-3))
    assert trained(clone(teacher), teacher, epochs=4).rate == 1e-3
    monkeypatch.setattr("modelspeed.training.trainer.RATES", (1e30, 1e31))
    with pytest.raises(DataError, match=r"lower `finetune.lr`"):
        trained(clone(teacher), teacher, epochs=4)


def test_training_ends_its_schedule_before_the_deadline():
    teacher = capture(pico.net(["residual"]), (pico.images(),))
    settings = make_step("finetune", epochs=1000.0, lr=1e-3, patience=None).settings
    objective = DistillationLoss(clone(teacher), teacher, settings)
    trainer = Trainer(objective, DATA, DATA[:1], lambda m: 0.0, settings, Silent())
    assert trainer._affordable(3000, 1.0) == 3000
    trainer.deadline = time.monotonic() + 10.0
    assert 5 <= trainer._affordable(3000, 1.0) <= 10
    trainer.deadline = 0.0
    assert trainer._affordable(3000, 1.0) == 1


def test_a_last_batch_of_one_tells_a_batch_norm_nothing():
    batches = [*DATA, (pico.images(1), torch.tensor([0]))]
    assert [len(y) for _, y in several(batches)] == [8, 8, 8]
    assert [len(y) for _, y in several(batches[3:])] == [1]


def test_training_stops_where_the_held_out_metric_no_longer_rises():
    teacher = capture(pico.net(["residual"]), (pico.images(),))
    settings = make_step("finetune", epochs=8, lr=1e-3, patience=1).settings
    objective = DistillationLoss(clone(teacher), teacher, settings)
    trainer = Trainer(objective, DATA, DATA[:1], lambda m: 0.0, settings, Silent())
    trainer.score = lambda: (0.0, 0.0)
    assert trainer.run() == 3  # one check of the eight


def test_batch_norm_statistics_become_the_mean_of_the_batches():
    module = capture(pico.net([]), (pico.images(),))
    reestimate_batch_norm(module, DATA, 3, "cpu")
    weight, bias = module.get_parameter("stem.weight"), module.get_parameter("stem.bias")
    means = [torch.nn.functional.conv2d(x, weight, bias, 2, 1).mean((0, 2, 3)) for x, _ in DATA]
    torch.testing.assert_close(module.get_buffer("bn.running_mean"), torch.stack(means).mean(0))
