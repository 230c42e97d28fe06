"""The half of the evaluation data that reports is read at the end, once, and decides nothing."""

from __future__ import annotations

import json

import costly
import pico
import pytest
import quick
import torch
from modelspeed.cli.main import app
from modelspeed.configs.load import load_recipe
from modelspeed.core.progress import Silent
from modelspeed.core.records import Target
from modelspeed.graph.capture import clone
from modelspeed.profiling import gate
from modelspeed.reporting import facts
from modelspeed.reporting import json as record_json
from modelspeed.tuning import delivery
from modelspeed.tuning.job import Job
from modelspeed.tuning.session import open_session
from typer.testing import CliRunner

COSTLY = "import costly\ndef loaders():\n    return costly.loaders(48, {count}, 0.0, 0.0)\n"
END, VERIFIED = ("end", 0), ("verified", 0)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("MODELSPEED_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv(gate.VARIABLE, str(tmp_path / "gate"))
    quick.hasten(monkeypatch.setattr)
    costly.ORDER.clear()
    made = pico.project(tmp_path / "user").parent
    (made / "data.py").write_text(COSTLY.format(count=480))
    return made


def run(folder, verb="tune", *more):
    words = [verb, folder / "ckpt.pt", "--threads", 1, "--json", "--force"]
    words += ["--out", folder / "fast", *more]
    done = CliRunner().invoke(app, list(map(str, words)))
    assert done.stdout, done.stderr
    return record_json.loads(done.stdout), done


def note(monkeypatch, name, mark):
    """Note in the order of what is read where that is called."""
    usual = getattr(delivery, name)
    monkeypatch.setattr(delivery, name, lambda *a, **k: costly.ORDER.append(mark) or usual(*a, **k))


def halves_of(folder):
    session = open_session(*job_of(folder), Silent())
    data = session.data
    parts = (data.halves._half(True), data.halves._half(False))
    return [set(part.dataset.indices) for part in parts]


def job_of(folder):
    inputs = ({"shape": [1, 1, 12, 12], "dtype": "float32"},)
    target = Target(threads=1)
    job = Job(str(folder / "ckpt.pt"), target, "model.py:build", str(folder), inputs=inputs)
    return job, load_recipe(folder / "modelspeed.yaml")


def test_what_reports_is_never_read_before_the_end_and_then_once(folder, monkeypatch):
    note(monkeypatch, "report_on", END)
    note(monkeypatch, "verify", VERIFIED)
    record, done = run(folder, "tune", "--target-ms", "1e-4")
    end = costly.ORDER.index(END)
    before, after = costly.ORDER[:end], costly.ORDER[end + 1 :]
    judge, report = halves_of(folder)
    assert len(judge) == len(report) == 240 and not judge & report
    read_before = {i for part, i in before if part == "eval"}
    assert read_before == judge  # all that decided, and nothing of the other half
    last = [i for part, i in after if part == "eval" and i in report]
    assert sorted(last) == sorted(report)
    # What ships was chosen by then: nothing else is asked for after it.
    assert VERIFIED in before and not {END, VERIFIED} & set(after)
    quality = record.quality
    assert quality.halved and quality.examples == quality.total == 240
    assert quality.judged.examples == 240 and quality.drop_low <= quality.drop <= quality.drop_high
    shown = dict(facts.key_facts(record))
    assert "240 examples" in shown["accuracy"] and "240 other examples" in shown["on what judged"]
    assert shown["judged by"] == "240 of 480 evaluation examples; the report reads the others"
    assert "judged by 240 of 480 evaluation examples" in done.stderr
    assert "240 examples that report" in done.stderr


@pytest.mark.long
def test_apply_reports_on_the_half_that_decided_nothing(folder, monkeypatch):
    note(monkeypatch, "verify", END)
    text = (folder / "modelspeed.yaml").read_text()
    (folder / "modelspeed.yaml").write_text(text.replace("- prune", "- prune: {ratio: 0.3}"))
    record, _ = run(folder, "apply")
    before = costly.ORDER[: costly.ORDER.index(END)]
    judge, _ = halves_of(folder)
    assert record.quality.halved and record.quality.examples == 240
    assert {i for part, i in before if part == "eval"} == judge
    words = ["check", folder / "fast", "--data", folder / "data.py:loaders", "--threads", 1]
    done = CliRunner().invoke(app, [*map(str, words), "--json"])
    checked = json.loads(done.stdout)
    assert checked["quality"]["examples"] == 240
    assert checked["quality"]["final"] == pytest.approx(record.quality.final)


@pytest.mark.long
def test_fifty_examples_and_one_minute_are_enough_for_a_run_that_says_what_it_did(folder):
    (folder / "data.py").write_text(COSTLY.format(count=50))
    record, done = run(folder, "tune", "--target-ms", "1e-4", "--minutes", "1")
    assert record.seconds < 70 and record.quality.total == 50 and not record.quality.halved
    assert "half of the evaluation data is 25 examples" in record.judge
    assert "judged by held-out training data" in done.stderr


ONLY_TRAIN = """
import torch
from torch.utils.data import DataLoader, TensorDataset
def loaders():
    data = TensorDataset(torch.randn(96, 1, 12, 12), torch.arange(96) % 3)
    return DataLoader(data, batch_size=8), None
"""


@pytest.mark.long
def test_without_evaluation_data_the_report_says_so_and_how_often_answers_agree(folder):
    (folder / "data.py").write_text(ONLY_TRAIN)
    record, done = run(folder, "tune", "--target-ms", "1e-4")
    assert not record.quality.known and 0.0 <= record.quality.agreement <= 1.0
    assert "unknown (no evaluation data)" in dict(facts.key_facts(record))["accuracy"]
    assert done.exit_code in (0, 3, 5) and "nearness to the original's answers" in record.judge
    assert any("divergence" in s.reason for s in record.steps if s.adjuster == "finetune")


def planned(folder, data, metric="accuracy", model=None):
    """A session with a plan, of this data."""
    (folder / "data.py").write_text(data)
    recipe = (folder / "modelspeed.yaml").read_text()
    wanted = f'{{factory: "data.py:loaders", metric: "{metric}"}}'
    recipe = recipe.replace('{factory: "data.py:loaders"}', wanted)
    (folder / "modelspeed.yaml").write_text(recipe)
    if model:
        (folder / "model.py").write_text(model)
        scope = {}
        exec(compile(model, "model.py", "exec"), scope)
        torch.save(scope["build"]().state_dict(), folder / "ckpt.pt")
    return open_session(*job_of(folder), Silent()).with_plan(searches=True, trains=True)


def worse(session):
    """The original with noise in all of its weights."""
    module = clone(session.original)
    torch.manual_seed(0)
    for parameter in module.parameters():
        parameter.data += 0.5 * torch.randn_like(parameter)
    return module


def rows(count, targets, batch=8):
    return f"""
import torch
from torch.utils.data import DataLoader, TensorDataset
def loaders():
    torch.manual_seed(0)
    x = torch.randn({count}, 1, 12, 12)
    data = TensorDataset(x, {targets})
    return DataLoader(data, batch_size=8, shuffle=True), DataLoader(data, batch_size={batch})

def pixels(outputs, targets):
    return (outputs.argmax(1) == targets).double().mean()
"""


SEGMENTS = """
from torch import nn
def build():
    return nn.Conv2d(1, 3, 3, padding=1)
"""
JUDGES = {
    "batches of one": (rows(402, "torch.arange(402) % 3", 1), "accuracy", None),
    "regression": (rows(400, "x.flatten(1)[:, :3]"), "mse", None),
    "segmentation": (rows(400, "(x[:, 0] > 0).long()"), "data.py:pixels", SEGMENTS),
}


@pytest.mark.parametrize("kind", JUDGES)
def test_a_half_judges_whatever_the_targets_are(folder, kind):
    data, metric, model = JUDGES[kind]
    session = planned(folder, data, metric, model)
    assert sum(session.data.halves.counts) >= 400 and min(session.data.halves.counts) >= 200
    start, after = session.held_out(None), session.held_out(worse(session))
    assert start.divergence == 0.0 < after.divergence
    same = session.drop(session.original, clone(session.original), 0.01)
    assert same.before == same.after == pytest.approx(start.score, abs=0.2) and not same.above
    assert session.drop(session.original, worse(session), -10.0).above


def test_without_evaluation_data_divergence_judges_and_agreement_is_what_may_fall(folder):
    session = planned(folder, ONLY_TRAIN)
    module = worse(session)
    start, after = session.held_out(None), session.held_out(module)
    assert start.score == 1.0 and start.divergence == 0.0 < after.divergence
    data = session.data
    assert data.rank(session.original, session.original, "cpu") == 0.0
    assert data.rank(module, session.original, "cpu") == pytest.approx(-after.divergence)
    drop = session.drop(session.original, module, 0.0)
    assert drop.before == 1.0 and drop.above == (drop.after < 1.0)
