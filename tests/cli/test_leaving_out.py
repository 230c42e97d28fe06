"""`--ignore` and `--import` reach every verb that reads a checkpoint or a program."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pico
import pytest
import torch
import typer
from modelspeed.cli import batch_jobs
from modelspeed.cli.job import absolute_files, job_for, recipe_for
from modelspeed.cli.load_flags import LoadFlags
from modelspeed.cli.main import app
from modelspeed.configs.entries import entries
from modelspeed.configs.jobs import JobSettings
from modelspeed.configs.load import dump_recipe, load_recipe
from modelspeed.configs.machine import MachineFlags
from modelspeed.core.errors import CheckpointError, ConfigError, UsageError
from modelspeed.tuning.job import open_source
from typer.testing import CliRunner

OPERATORS = """
import torch
from torch import Tensor
@torch.library.custom_op("pico_ops::twice", mutates_args=())
def twice(x: Tensor) -> Tensor:
    return x * 2
@twice.register_fake
def _(x):
    return torch.empty_like(x)
"""
MAKE = """
import torch, operators
class Net(torch.nn.Linear):
    def forward(self, x):
        return torch.ops.pico_ops.twice(super().forward(x))
torch.export.save(torch.export.export(Net(2, 2).eval(), (torch.ones(2, 2),)), "m.pt2")
"""
FOR_CHECKPOINTS = {"tune", "apply", "profile", "init", "batch"}
FOR_PROGRAMS = FOR_CHECKPOINTS | {"check", "export"}


def flags_of(command: str) -> set[str]:
    made = typer.main.get_command(app).commands[command]
    return {flag for parameter in made.params for flag in parameter.opts}


def test_each_verb_takes_the_flags_of_what_it_reads():
    for verb in FOR_PROGRAMS:
        assert "--import" in flags_of(verb), verb
        assert ("--ignore" in flags_of(verb)) is (verb in FOR_CHECKPOINTS), verb


@pytest.fixture
def project(tmp_path, monkeypatch):
    pico.project(tmp_path, pico.RECIPE + "ignore: ['^old']\n")
    held = torch.load(tmp_path / "ckpt.pt")
    more = {"old.w": torch.ones(2), "projector.w": torch.ones(2)}
    torch.save(held | more, tmp_path / "ckpt.pt")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_patterns_of_flag_and_recipe_both_hold(project):
    flags = MachineFlags(threads=1)
    with pytest.raises(CheckpointError, match=r"1 unexpected.*--ignore '\^projector"):
        asked = LoadFlags(Path("ckpt.pt"))
        open_source(job_for(asked, recipe_for(asked, "tune"), flags))
    asked = LoadFlags(Path("ckpt.pt"), ignore=(r"^projector\.",))
    recipe = recipe_for(asked, "tune")
    assert recipe.ignore == ("^old", r"^projector\.")
    notes = open_source(job_for(asked, recipe, flags)).notes
    assert [n for n in notes if "leaves out 1 tensor" in n] == list(notes) and len(notes) == 2
    (project / "again.yaml").write_text(dump_recipe(recipe))
    assert load_recipe(project / "again.yaml").ignore == recipe.ignore


def test_what_is_not_a_regular_expression_is_refused_by_flag_and_recipe(project):
    with pytest.raises(UsageError, match=r"`--ignore` is .*regular expression"):
        recipe_for(LoadFlags(Path("ckpt.pt"), ignore=("(",)), "tune")
    (project / "bad.yaml").write_text("version: 1\nignore: ['(']\n")
    with pytest.raises(ConfigError, match="regular expression"):
        load_recipe(project / "bad.yaml")


def test_a_batch_hands_both_on_to_its_runs(project):
    flags = JobSettings.model_construct(ignore=("^a", "^b"), without_data=True)
    asked, _, _ = entries(["ckpt.pt"], flags, project)
    (plan,) = batch_jobs.plans_for(
        asked, project / "out", force=False, trust_pickle=False, imports=absolute_files(["ops.py"])
    )
    words = list(plan.command)
    assert "--ignore=^a" in words and "--ignore=^b" in words and "--without-data" in words
    assert f"--import={project / 'ops.py'}" in words


@pytest.mark.long
def test_operators_of_a_library_are_there_for_each_verb(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "operators.py").write_text(OPERATORS)
    subprocess.run([sys.executable, "-c", MAKE], check=True, cwd=tmp_path)

    def run(*words):
        return subprocess.run(
            [sys.executable, "-m", "modelspeed", *words],
            capture_output=True,
            text=True,
            cwd=tmp_path,
        )

    told = run("init", "m.pt2")
    assert told.returncode and "pico_ops" in told.stderr and "--import" in told.stderr
    assert not run("init", "m.pt2", "--import", "operators.py").returncode


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("no_such_library", "no such module"),
        ("gone.py", "there is no file"),
        ("a-b", "name a module"),
        ("broken.py", "failed"),
    ],
)
@pytest.mark.parametrize("verb", ["check", "export", "init", "profile"])
def test_a_module_that_is_not_there_or_fails_is_one_sentence(
    tmp_path, monkeypatch, verb, name, words
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "broken.py").write_text("raise ValueError('no')")
    torch.save(torch.nn.Linear(2, 2).state_dict(), tmp_path / "m.pt")
    done = CliRunner().invoke(app, [verb, "m.pt", "--import", name, *(
        ["--inputs", "1x2"] if verb == "profile" else [])])  # fmt: skip
    assert done.exit_code and words in done.stderr and "Traceback" not in done.stderr
