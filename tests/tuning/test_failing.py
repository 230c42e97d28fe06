"""What fails inside one step or one candidate of a run is undone and named; the rest goes on."""

from __future__ import annotations

import json
import logging

import pico
import pytest
import quick
import torch
from modelspeed.adjusters.plan import Adjuster
from modelspeed.adjusters.registry import ADJUSTERS
from modelspeed.cli.main import app
from modelspeed.core.errors import UsageError
from modelspeed.search import search
from modelspeed.training import trainer
from modelspeed.tuning import distributed as workers
from modelspeed.tuning import lab
from modelspeed.tuning import steps as pipeline
from typer.testing import CliRunner

HEAD = """
version: 1
model: {factory: "model.py:build"}
inputs: [{shape: [1, 1, 12, 12]}]
data: {factory: "data.py:loaders"}
adjust:
"""
NO_GRADIENT = """
import torch
from torch import nn

if not hasattr(torch.ops.pico_failing, "double"):
    @torch.library.custom_op("pico_failing::double", mutates_args=())
    def double(x: torch.Tensor) -> torch.Tensor:
        return x * 2

    @double.register_fake
    def _(x):
        return torch.empty_like(x)

class Twice(nn.Module):
    def forward(self, x):
        return torch.ops.pico_failing.double(x)

def build(width=8):
    return nn.Sequential(
        nn.Conv2d(1, width, 3), nn.BatchNorm2d(width), nn.ReLU(), Twice(),
        nn.Conv2d(width, width, 3), nn.ReLU(), nn.Conv2d(width, 2 * width, 3), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2 * width, 3),
    )
"""
POOLED = """
import torch
from torch import nn

class Pooled(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())
        self.branch = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Conv2d(8, 8, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU())
        self.head = nn.Conv2d(8, 3, 1)

    def forward(self, x):
        y = self.stem(x)
        return self.head(y + self.branch(y)).mean((2, 3))

def build():
    return Pooled()
"""
SINGLE = """
import torch

def loaders():
    g = torch.Generator().manual_seed(0)
    rows = [(torch.randn(1, 1, 12, 12, generator=g), torch.tensor([i % 3])) for i in range(12)]
    return rows, rows[:6]
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("MODELSPEED_CACHE", str(tmp_path / "cache"))
    quick.hasten(monkeypatch.setattr)
    return pico.project(tmp_path / "user").parent


def rebuilt(folder, model):
    (folder / "model.py").write_text(model)
    scope = {}
    exec(compile(model, "model.py", "exec"), scope)
    torch.manual_seed(0)
    torch.save(scope["build"]().state_dict(), folder / "ckpt.pt")


def run(folder, steps, verb="apply", *more):
    (folder / "modelspeed.yaml").write_text(HEAD + "".join(f"  - {s}\n" for s in steps))
    words = [verb, folder / "ckpt.pt", "--threads", "1", "--json", "--out", folder / "fast", *more]
    return CliRunner().invoke(app, list(map(str, words)))


def rows(done):
    assert done.stdout, done.stderr
    return {s["adjuster"]: s for s in json.loads(done.stdout)["steps"]}


def planted(monkeypatch, name, plan):
    monkeypatch.setitem(ADJUSTERS, name, Adjuster(name, "", plan))


def broken(*_, **__):
    raise ZeroDivisionError("planted\nmore of it")


def test_a_step_that_raises_is_rolled_back_with_type_and_first_line(folder, monkeypatch):
    planted(monkeypatch, "scale", broken)
    by_step = rows(run(folder, ["scale: {factor: 0.5, first: 1}", "fold_batchnorm"]))
    assert by_step["scale"]["status"] == "rolled back"
    assert by_step["scale"]["reason"] == "it failed with ZeroDivisionError: planted"
    assert by_step["fold_batchnorm"]["status"] == "kept"
    assert "ZeroDivisionError" in (folder / "fast" / "report.md").read_text()


@pytest.mark.long
def test_debug_shows_the_traceback_of_a_step_that_was_left_out(folder, monkeypatch):
    planted(monkeypatch, "scale", broken)
    done = run(folder, ["scale: {factor: 0.5, first: 1}", "fold_batchnorm"], "apply", "--debug")
    assert "Traceback" in done.stderr and "more of it" in done.stderr
    assert not logging.getLogger("modelspeed").handlers


def test_where_nothing_works_apply_ends_with_the_first_true_reason(folder, monkeypatch):
    planted(monkeypatch, "scale", broken)
    done = run(folder, ["scale: {factor: 0.5, first: 1}"])
    assert done.exit_code == 1 and "ZeroDivisionError: planted" in done.stderr
    assert not (folder / "fast").exists()


@pytest.mark.parametrize(("raised", "code", "said"), [
    (KeyboardInterrupt(), 130, "stopped"), (UsageError("that is wrong."), 2, "that is wrong"),
])  # fmt: skip
def test_what_is_the_users_own_still_ends_the_run(folder, monkeypatch, raised, code, said):
    def plan(*_):
        raise raised

    planted(monkeypatch, "scale", plan)
    done = run(folder, ["scale: {factor: 0.5, first: 1}", "fold_batchnorm"])
    assert done.exit_code == code and said in done.stderr and not (folder / "fast").exists()


@pytest.mark.parametrize("error", [
    RuntimeError("DefaultCPUAllocator: can't allocate memory"),
    pytest.param(torch.OutOfMemoryError("CUDA out"), marks=pytest.mark.long),
    pytest.param(MemoryError("none left"), marks=pytest.mark.long),
    pytest.param(trainer.Diverged("the fine-tuning loss is not finite."), marks=pytest.mark.long),
])  # fmt: skip
def test_a_training_that_fails_half_way_leaves_weights_and_statistics_as_they_were(
    folder, monkeypatch, error
):
    seen, kept = [], {}

    def step(self, optimizer, inputs, targets):
        for value in self.objective.student.state_dict().values():
            value.fill_(7)
        raise error

    def measured(run, variant, step, errors):
        before = {k: v.clone() for k, v in variant.module.state_dict().items()}
        outcome = original(run, variant, step, errors)
        kept[step.name] = before, outcome[0].module.state_dict()
        seen.append(step.name)
        return outcome

    original = pipeline.StepRunner._measured
    monkeypatch.setattr(pipeline.StepRunner, "_measured", measured)
    monkeypatch.setattr(trainer.Trainer, "_step", step)
    by_step = rows(run(folder, ["finetune: {epochs: 2, lr: 0.001}", "fold_batchnorm"]))
    assert by_step["finetune"]["status"] == "rolled back"
    assert f"{type(error).__name__}: {str(error)[:20]}" in by_step["finetune"]["reason"]
    assert by_step["fold_batchnorm"]["status"] == "kept"
    before, after = kept["finetune"]
    assert before.keys() == after.keys() and all(torch.equal(before[k], after[k]) for k in before)


@pytest.mark.long
def test_training_inside_quantize_that_fails_costs_the_training_alone(folder, monkeypatch):
    monkeypatch.setattr(workers, "finetune", broken)
    by_step = rows(run(folder, ["quantize: {scheme: int8_weight, finetune: 1.0}"]))
    assert by_step["quantize"]["status"] == "kept"
    assert (
        "its training is left out: it failed with ZeroDivisionError"
        in (by_step["quantize"]["reason"])
    )


def test_single_images_through_a_pooled_branch_train_and_keep_its_statistics(folder):
    rebuilt(folder, POOLED)
    (folder / "data.py").write_text(SINGLE)
    by_step = rows(run(folder, ["finetune: {epochs: 1, lr: 0.0001, bn_batches: 4}"]))
    assert "it failed" not in by_step["finetune"]["reason"], by_step
    assert "nan" not in by_step["finetune"]["reason"]


def test_an_operator_without_a_derivative_costs_what_needs_one_and_no_more(folder):
    rebuilt(folder, NO_GRADIENT)
    steps = ["prune: {ratio: 0.3, importance: compensated}", "compensate", "finetune",
             "fold_batchnorm"]  # fmt: skip
    done = run(folder, steps)
    by_step = rows(done)
    assert by_step["prune"]["status"] == "kept"
    assert by_step["finetune"]["status"] == "rolled back"
    assert "no autograd formula was registered" in by_step["finetune"]["reason"]
    assert (
        by_step["compensate"]["status"] != "skipped"
        and "failed" not in (by_step["compensate"]["reason"])
    )
    left = {row["what"]: row["reason"] for row in json.loads(done.stdout)["left_alone"]}
    assert "weight norms rank instead" in left["importance"]


@pytest.mark.long
def test_tune_goes_on_where_gradients_cannot_be_taken(folder):
    rebuilt(folder, NO_GRADIENT)
    steps = ["drop_blocks", "prune: {importance: compensated}", "compensate", "finetune",
             "fold_batchnorm"]  # fmt: skip
    done = run(folder, steps, "tune", "--target-ms", "0.0001")
    by_step = rows(done)
    assert done.exit_code == 3 and list(by_step) == [s.partition(":")[0] for s in steps]
    left = {row["what"]: row["reason"] for row in json.loads(done.stdout)["left_alone"]}
    assert "weight norms rank instead" in left["importance"]


def test_a_candidate_that_fails_is_named_and_the_others_are_weighed(folder, monkeypatch):
    original, count = lab.build, []

    def build(*args, **more):
        count.append(1)
        if len(count) == 1:
            raise ZeroDivisionError("planted")
        return original(*args, **more)

    monkeypatch.setattr(lab, "build", build)
    done = run(folder, ["prune: {importance: magnitude}", "fold_batchnorm"], "tune",
               "--target-ms", "0.0001")  # fmt: skip
    record = json.loads(done.stdout)
    failed = [r for r in record["left_alone"] if "ZeroDivisionError: planted" in r["reason"]]
    assert [r["what"].split(",")[0] for r in failed] == ["tried 1"]
    assert (folder / "fast" / "report.html").exists()


@pytest.mark.parametrize("where", ["build", pytest.param("space", marks=pytest.mark.long)])
def test_where_the_whole_search_fails_lossless_work_is_written(folder, monkeypatch, where):
    class Space:
        of = broken

    if where == "build":
        monkeypatch.setattr(lab, "build", broken)
    else:
        monkeypatch.setattr(search, "SearchSpace", Space)
    done = run(folder, ["prune: {importance: magnitude}", "fold_batchnorm"], "tune",
               "--target-ms", "0.0001")  # fmt: skip
    by_step = rows(done)
    record = json.loads(done.stdout)
    assert by_step["fold_batchnorm"]["status"] == "kept" and done.exit_code == 3
    assert by_step["prune"]["status"] != "kept"
    texts = [by_step["prune"]["reason"], *(r["reason"] for r in record["left_alone"])]
    assert any("ZeroDivisionError: planted" in t for t in texts)
    assert (folder / "fast" / "modelspeed.json").exists()


@pytest.mark.long
def test_a_lossless_step_that_fails_does_not_end_tune(folder, monkeypatch):
    planted(monkeypatch, "flush_subnormals", broken)
    done = run(folder, ["flush_subnormals", "prune: {importance: magnitude}", "fold_batchnorm"],
               "tune", "--target-ms", "0.0001")  # fmt: skip
    by_step = rows(done)
    assert by_step["flush_subnormals"]["reason"] == "it failed with ZeroDivisionError: planted"
    assert by_step["prune"]["status"] == by_step["fold_batchnorm"]["status"] == "kept"
