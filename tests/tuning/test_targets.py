"""Targets that can't be used are met at opening: before anything is measured or trained."""

from __future__ import annotations

import re

import pico
import pytest
import quick
import torch
from modelspeed.cli.main import app
from modelspeed.core.errors import DataError
from modelspeed.profiling.losses import task_loss
from modelspeed.tuning.session import Session
from typer.testing import CliRunner

RECIPE = """
version: 1
model: {factory: "model.py:build"}
inputs: [{shape: [1, 1, 12, 12]}]
data: {factory: "data.py:loaders", metric: %s}
adjust: [%s]
"""
DATA = """
import torch

def of(targets):
    return torch.randn(8, 1, 12, 12), targets

def ints(*last, dtype=torch.int64):
    return torch.tensor([0, 1, 2, 0, 1, 2, 0, *last][-8:], dtype=dtype)

good = of(ints(1))

def loaders():
    train, evaluated = [good] * 6, [good] * 2
    %s
    return train, evaluated

def score(outputs, targets):
    return float((outputs.argmax(1) == targets).double().mean())
"""
BAD = {
    "eval -1": ("evaluated[0] = of(ints(-1))", "eval data", "reach from -1 to 2"),
    "eval too high": ("evaluated[0] = of(ints(3))", "eval data", "allowed are 0 to 2"),
    "eval real": ("evaluated[0] = of(torch.randn(8))", "eval data", "integer targets"),
    "train -1": ("train[0] = of(ints(-1))", "train data", "from 0 to 2.*from -1 to 2.*ignore"),
    "train 255": ("train[0] = of(ints(255))", "train data", "from 0 to 255.*-100"),
    "a later batch": ("train[3] = of(ints(3))", "train data", "from 0 to 3"),
    "train real": ("train[0] = of(torch.randn(8))", "train data", "outputs' shape"),
    "train NaN": ("train[0] = of(torch.full((8, 3), float('nan')))", "train data", "NaN"),
    "train places": ("train[0] = of(torch.zeros(8, 2).long())", "train data", "each row of logits"),
    "no shape": ("train[0] = of(torch.tensor(1))", "train data", "without a shape"),
}


@pytest.fixture
def opened(tmp_path, monkeypatch):
    def go(change, metric="accuracy", steps="finetune"):
        folder = pico.project(tmp_path / "user").parent
        (folder / "data.py").write_text(DATA % change)
        (folder / "modelspeed.yaml").write_text(RECIPE % (metric, steps))
        words = ["apply", folder / "ckpt.pt", "--threads", "1", "--out", folder / "fast"]
        return CliRunner().invoke(app, list(map(str, words)))

    monkeypatch.setenv("MODELSPEED_CACHE", str(tmp_path / "cache"))
    quick.hasten(monkeypatch.setattr)
    monkeypatch.setattr(Session, "with_baseline", reached)
    return go


def reached(session):
    raise DataError("the data was taken")


@pytest.mark.parametrize("name", BAD)
def test_a_target_that_names_nothing_ends_the_run_before_any_measurement(opened, name):
    change, part, said = BAD[name]
    done = opened(change)
    assert done.exit_code == 1 and "the data was taken" not in done.stderr
    assert part in done.stderr and "`data.py:loaders`" in done.stderr
    assert re.search(said, done.stderr, re.DOTALL), done.stderr


@pytest.mark.parametrize("change", [
    "pass", "train[0] = of(ints(-100))", "train[0] = of(ints(1, dtype=torch.uint8))",
    "train[0] = of(ints(1, dtype=torch.int32))", "train[0] = of(torch.rand(8, 3).double())",
])  # fmt: skip
def test_what_training_can_use_is_taken(opened, change):
    assert "the data was taken" in opened(change).stderr


def test_targets_that_no_step_trains_on_may_be_anything(opened):
    done = opened("train[0] = of(ints(-1))", "accuracy", "fold_batchnorm")
    assert "the data was taken" in done.stderr


def test_a_metric_of_the_users_that_fails_is_named(opened):
    done = opened("evaluated[0] = of(torch.zeros(8, 5, 2))", '"data.py:score"')
    assert done.exit_code == 1 and "eval data: `data.py:score` failed" in done.stderr


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int32, torch.bool])
def test_class_numbers_of_any_integer_type_give_the_same_loss(dtype):
    outputs, targets = torch.randn(4, 2), torch.tensor([0, 1, 1, 0])
    assert task_loss(outputs, targets.to(dtype)) == task_loss(outputs, targets)


def test_real_targets_of_another_type_train_as_the_outputs():
    outputs = torch.randn(4, 2, requires_grad=True)
    task_loss(outputs, torch.zeros(4, 2, dtype=torch.float64)).backward()
    assert outputs.grad.dtype == torch.float32
