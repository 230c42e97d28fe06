"""Whole runs on a pretended clock: whatever is expensive, the run ends in time."""

from __future__ import annotations

import costly
import pico
import pytest
import quick
from modelspeed.cli.main import app
from modelspeed.profiling import gate
from modelspeed.reporting import facts
from modelspeed.reporting import json as record_json
from modelspeed.training.trainer import Trainer
from modelspeed.tuning import lab
from typer.testing import CliRunner

RECIPE = pico.RECIPE.replace("max_drop: 1.0", "max_drop: 1.0, minutes: 5")
DATA = "import costly\ndef loaders():\n    return costly.loaders({train}, {evaluation}, {t}, {e})\n"
LIMIT = 300.0


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.setenv("MODELSPEED_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv(gate.VARIABLE, str(tmp_path / "gate"))
    quick.hasten(monkeypatch.setattr)
    folder = pico.project(tmp_path / "user", RECIPE).parent

    def made(train=120, evaluation=240, t=0.0, e=0.0, verb="tune", target=("--target-ms", "1e-4")):
        costly.READ.clear()
        text = DATA.format(train=train, evaluation=evaluation, t=t, e=e)
        (folder / "data.py").write_text(text)
        recipe = RECIPE.replace("- prune", "- prune: {ratio: 0.3}") if verb == "apply" else RECIPE
        (folder / "modelspeed.yaml").write_text(recipe)
        words = [verb, folder / "ckpt.pt", "--threads", 1, "--json", "--out", folder / "fast"]
        words += [*(target if verb == "tune" else ()), "--force"]
        done = CliRunner().invoke(app, list(map(str, words)))
        assert done.stdout, done.stderr
        record = record_json.loads(done.stdout)
        shares = {row.what: row.seconds for row in record.time_spent}
        assert sum(shares.values()) == pytest.approx(record.seconds, abs=0.1)
        assert facts.tables(record)[-1].title == "Where the time went"
        assert record.seconds <= 1.05 * LIMIT + 30, done.stderr
        return record, shares, done.stderr

    return made


def evaluated(shares):
    return sum(seconds for what, seconds in shares.items() if what.startswith("evaluating"))


@pytest.mark.long
def test_all_evaluation_data_is_read_once_where_it_fits(run):
    record, _, _ = run(evaluation=3000)
    assert record.quality.examples == record.quality.total == 1500 == record.quality.judged.examples
    # The last word on what ships, of both models in one pass; of the other half one pass for each
    # variant that was finished, the first batches, which are timed, and what decides on the way.
    finals = 1 + sum("finished but not shipped" in c.label for c in record.candidates)
    assert 1500 * (1 + finals) <= costly.READ["eval"] <= 1500 * (2 + finals) + 150


@pytest.mark.long
def test_expensive_evaluation_data_takes_a_small_part_of_the_run(run, monkeypatch):
    build = lab.build
    monkeypatch.setattr(lab, "build", lambda *a, **k: costly.pass_time(6.0) or build(*a, **k))
    record, shares, said = run(evaluation=20_000, e=0.1, t=0.02)
    assert evaluated(shares) <= 0.15 * LIMIT, shares
    assert record.quality.total == 10_000 and 50 < record.quality.examples < 1000
    of = f"{record.quality.examples:,} of 10,000 examples"
    assert f"evaluation: {of.split(' of')[0]}"[:13] in said and "of 10,000 examples" in said
    assert "cut to fit" in said and of in dict(facts.key_facts(record))["accuracy"]
    assert costly.READ["eval"] * 0.1 <= 0.15 * LIMIT


@pytest.mark.long
def test_expensive_training_ends_in_time(run, monkeypatch):
    step = Trainer._step
    monkeypatch.setattr(Trainer, "_step", lambda *a: costly.pass_time(20.0) or step(*a))
    _, shares, _ = run(train=800)
    assert shares["training"] > 30


@pytest.mark.long
def test_an_expensive_search_ends_in_time_and_leaves_training_its_share(run, monkeypatch):
    build = lab.build
    monkeypatch.setattr(lab, "build", lambda *a, **k: costly.pass_time(15.0) or build(*a, **k))
    record, shares, _ = run(t=0.01)
    assert shares["building candidates"] > 15
    assert any(s.adjuster == "finetune" and "steps" in s.reason for s in record.steps)


@pytest.mark.long
def test_expensive_verifications_end_in_time(run, monkeypatch):
    made = quick._verify
    monkeypatch.setattr(
        "modelspeed.tuning.delivery.verify", lambda *a: costly.pass_time(40.0) or made(*a)
    )
    _, shares, said = run()
    assert shares["verifying in a fresh process"] >= 40
    assert "verification: 2 rounds" in said


@pytest.mark.long
def test_apply_is_planned_too_and_exact_steps_read_no_data(run):
    first, _, said = run(verb="apply", evaluation=1000)
    assert "plan: " in said and first.quality.examples == 500
    exact = next(s for s in first.steps if s.adjuster == "fold_batchnorm")
    assert "outputs" in exact.reason and exact.accuracy_after is None
