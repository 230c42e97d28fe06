"""A run that lowered its threads is found again, and goes on with that count."""

from __future__ import annotations

from dataclasses import replace

import pico
import pytest
import torch
from modelspeed.configs.load import load_recipe
from modelspeed.core.progress import Silent
from modelspeed.core.records import Notice, Target
from modelspeed.tuning import session as room
from modelspeed.tuning.job import Job
from modelspeed.tuning.threads import ThreadChoice

BUSY = Notice("fewer_threads", "busy", "others", "wait")


@pytest.fixture
def opened(tmp_path, monkeypatch):
    monkeypatch.setenv("MODELSPEED_CACHE", str(tmp_path / "cache"))
    path = pico.project(tmp_path / "user")
    recipe = load_recipe(path.parent / "modelspeed.yaml")
    before = torch.get_num_threads()

    def begin(busy, resume=True, **target):
        """A new process with two threads; the stages of the journal that it goes on from."""
        torch.set_num_threads(2)
        said = Silent()
        said.note = notes.append
        inputs = ({"shape": [1, 1, 12, 12], "dtype": "float32"},)
        target = Target(ms=1.0, **target)
        job = Job(str(path), target, "model.py:build", str(path.parent), {}, inputs)
        monkeypatch.setattr(room, "without_spinning", fewer if busy else lambda t, *_: (t, ()))
        notes.clear()
        session = room.open_session(job, recipe, said).with_journal("tune", resume)
        return session, [n for n in notes if "the journal" in n or "no journal" in n]

    def fewer(target, *_):
        return replace(target, threads=1), (BUSY,)

    notes = []
    yield begin
    torch.set_num_threads(before)


@pytest.mark.parametrize("later", [True, False])
def test_a_run_on_a_busy_machine_goes_on_with_the_same_threads(opened, later):
    first, _ = opened(busy=True, resume=False)
    assert first.job.target.threads == 1 == torch.get_num_threads() and first.remarks == (BUSY,)
    first.journal.put("baseline", ThreadChoice())
    again, said = opened(busy=later)
    assert said == ["taken from the journal: threads, baseline"]
    assert again.job.target.threads == 1 == torch.get_num_threads() and again.remarks == (BUSY,)
    assert len(again.journal.left) == 1 and again.with_threads() is again


def test_a_run_on_a_quiet_machine_keeps_its_threads_when_it_goes_on_beside_others(opened):
    opened(busy=False, resume=False)
    again, said = opened(busy=True)
    assert said == ["taken from the journal: threads"]
    assert again.job.target.threads == 0 and torch.get_num_threads() == 2 and not again.remarks


def test_what_the_user_named_is_no_choice_and_another_run(opened):
    opened(busy=True, resume=False)
    session, said = opened(busy=True, threads=2)
    assert said == ["no journal of this run was found: it starts over"]
    assert session.job.target.threads == 2 and session.journal.count == 0
