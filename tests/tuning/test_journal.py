from __future__ import annotations

import errno
import os
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pico
import pytest
import torch
from modelspeed.configs.load import load_recipe
from modelspeed.core.cache import cache_folder
from modelspeed.core.progress import Silent
from modelspeed.core.records import Latency, StepRecord, Target
from modelspeed.graph.blocks import Block
from modelspeed.graph.capture import capture, clone
from modelspeed.graph.edits.apply import FoldBatchNorm, apply, edits_to_json
from modelspeed.search.droppable_blocks import DroppableBlock, DroppableBlocks
from modelspeed.search.knapsack import Choice, Problem, Term
from modelspeed.search.layer_options import AS_IT_IS, LayerOption, LayerOptions
from modelspeed.search.search import Trial
from modelspeed.search.space import Ranking
from modelspeed.search.variant import Variant
from modelspeed.tuning.job import Job
from modelspeed.tuning.journal import KEPT_DAYS, Journal, key_of
from modelspeed.tuning.tried_steps import Done

TRIAL = Trial({"a": 1}, 2.0, 0.5, Latency(50.0, 1.0, 0.9, 1.1, (1.0, 1.1)), "plain")
DEPTH = DroppableBlocks(
    (DroppableBlock(Block("b", "add", "relu", ("b.weight",)), ("b",), ("conv", "add"), 0.5),), 1
)


class Heard(Silent):
    def __init__(self):
        self.notes = []

    def note(self, text):
        self.notes.append(text)


@dataclass(frozen=True)
class Stage:
    number: int


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("MODELSPEED_CACHE", str(tmp_path / "cache"))


def opened(resume=True, key="k"):
    progress = Heard()
    return Journal.open(key, resume, progress), progress.notes


def written(*numbers, key="k"):
    journal, _ = opened(False, key)
    for number in numbers:
        journal.put(f"stage{number}", Stage(number))
    return sorted(journal.folder.iterdir())


def test_values_come_back_as_they_were():
    journal, _ = opened()
    problem = Problem({"a": Choice((1, 2), (0.5, 0.0))}, [Term(("a",), np.arange(2.0))], 3.0)
    ranking = Ranking({"a": np.array([0.1, 0.2])}, {"a": 4.0}, 8, DEPTH)
    layer_options = LayerOptions({"conv": (LayerOption(1, 0.5, 0.1, 8), AS_IT_IS)})
    rows = (("ways", layer_options), ("widths", problem), ("ranking", ranking), ("trial", TRIAL))
    for stage, value in rows:
        journal.put(stage, value)
    again, notes = opened()
    assert notes == ["taken from the journal: ways, widths, ranking, trial"]
    assert again.get("ways", LayerOptions) == layer_options
    entry = again.get("widths", Problem)
    assert entry.choices == problem.choices and entry.fixed_ms == 3.0
    assert entry.terms[0].names == ("a",) and entry.terms[0].ms.tolist() == [0.0, 1.0]
    entry = again.get("ranking", Ranking)
    assert entry.depth == DEPTH
    scores = entry.scores["a"]
    assert scores.dtype == np.float64 and scores.tolist() == [0.1, 0.2]
    assert again.get("trial", Trial) == TRIAL and again.get("trial", Trial) is None


def test_a_step_is_redone_from_its_edits_and_weights():
    original = capture(pico.net(["residual"]), (pico.images(),))
    fold = FoldBatchNorm(next(n.name for n in original.graph.nodes if "batch_norm" in n.name))
    module = apply(clone(original), [fold])
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.1)
    step = StepRecord("finetune", {"epochs": 1.0}, "kept", "better")
    journal, _ = opened()
    journal.put(
        "finetune", Done(step, edits_to_json([fold]), (), dict(module.state_dict()), "plain")
    )
    variant = Variant(clone(original))
    variant = opened()[0].get("finetune", Done).redone(variant)
    assert torch.equal(variant.module(pico.images()), module(pico.images()))
    assert variant.edits == (fold,) and variant.steps == (step,)


def falsify(path):
    """The number in it another one, and the file still a sound one."""
    data = path.read_bytes()
    assert data.count(b": 2}") == 1
    path.write_bytes(data.replace(b": 2}", b": 3}"))


SPOILT = {
    "cut short": lambda p: p.write_bytes(p.read_bytes()[:-5]),
    "empty": lambda p: p.write_bytes(b""),
    "one digit": falsify,
    "of another run": lambda p: p.write_bytes(written(1, 2, 3, key="other")[1].read_bytes()),
    "no safetensors": lambda p: p.write_text("hello"),
    "a folder": lambda p: (p.unlink(), p.mkdir()),
}


@pytest.mark.parametrize("how", sorted(SPOILT))
def test_a_damaged_or_foreign_entry_ends_the_journal_there_with_a_note(how):
    SPOILT[how](written(1, 2, 3)[1])
    journal, notes = opened()
    assert "002-stage2.safetensors` is damaged" in notes[0]
    assert notes[1] == "taken from the journal: stage1"
    assert journal.get("stage1", Stage) == Stage(1) and journal.get("stage2", Stage) is None


def test_after_a_damaged_entry_the_journal_is_whole_again():
    falsify(written(1, 2, 3)[1])
    journal, _ = opened()
    journal.get("stage1", Stage)
    journal.put("a way of its own", Stage(2))
    assert opened()[1] == ["taken from the journal: stage1, a way of its own"]


def test_another_way_drops_what_would_have_followed():
    written(1, 2, 3)
    journal, _ = opened()
    assert journal.kept("stage1", Stage, lambda: Stage(7)) == Stage(1)
    assert journal.kept("else", Stage, lambda: Stage(7)) == Stage(7)
    assert opened()[1] == ["taken from the journal: stage1, else"]


def test_without_resume_an_earlier_journal_goes_and_the_user_hears_of_it():
    written(1)
    assert "`--resume` would have gone on" in opened(False)[1][0]
    assert opened()[1] == ["no journal of this run was found: it starts over"]
    assert opened(False)[1] == []


def test_a_full_disk_costs_the_journal_one_note_and_the_run_nothing(monkeypatch):
    def full(path, data):
        raise OSError(errno.ENOSPC, "No space left on device")

    written(1)
    journal, notes = opened()
    monkeypatch.setattr(Path, "write_bytes", full)
    values = [journal.kept(f"stage{n}", Stage, lambda n=n: Stage(n)) for n in (1, 2, 3)]
    assert values == [Stage(1), Stage(2), Stage(3)]
    assert len(notes) == 2 and "No space left" in notes[1]


def test_journals_that_nobody_went_on_with_are_forgotten():
    folder = written(1, key="old")[0].parent
    os.utime(folder, (0, 0))
    recent = written(1, key="recent")[0].parent
    opened(key="k")
    assert KEPT_DAYS > 1 and not folder.exists() and recent.exists()


def test_the_key_changes_with_everything_a_result_depends_on(tmp_path):
    pico.project(tmp_path)
    recipe = load_recipe(tmp_path / "modelspeed.yaml")
    job = Job("ckpt.pt", Target(ms=1.0), "model.py:build", str(tmp_path))

    def key(kind="tune", job=job, recipe=recipe, sha256="a", machine="m"):
        return key_of(kind, job, recipe, sha256, machine)

    first = key()
    assert key() == first
    others = [
        key(kind="apply"), key(sha256="b"), key(machine="n"), key(job=replace(job, seed=1)),
        key(job=replace(job, target=Target(ms=2.0))), key(job=replace(job, args={"width": 4})),
        key(recipe=recipe.model_copy(update={"adjust": recipe.adjust[1:]})),
        *(key(recipe=recipe.model_copy(update={"data": recipe.data.model_copy(update=other)}))
          for other in ({"judge": "train"}, {"judge_seed": 1})),
    ]  # fmt: skip
    for file in ("model.py", "data.py"):
        (tmp_path / file).write_text((tmp_path / file).read_text() + "\n# changed\n")
        others.append(key())
    assert len({first, *others}) == 1 + len(others)


def test_nothing_is_kept_without_a_folder():
    journal = Journal()
    assert journal.kept("stage", Stage, lambda: Stage(1)) == Stage(1)
    journal.remove()
    assert not cache_folder().exists()
