"""`check` as CI calls it: what it measures is faked, what it decides and writes is not."""

from __future__ import annotations

import json
from xml.etree import ElementTree

import pico
import pytest
import torch
from modelspeed.cli.main import app
from modelspeed.core.records import Latency
from modelspeed.tuning import check as checking
from quick import hasten
from typer.testing import CliRunner


def run(*words):
    done = CliRunner().invoke(app, [str(w) for w in words])
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    assert "Traceback" not in done.stderr
    return done.exit_code, done.stdout, done.stderr


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A user's folder with one artifact, made for 2x; its record says 1 ms."""
    folder = tmp_path_factory.mktemp("user")
    torch.set_num_threads(1)
    recipe = pico.RECIPE.replace("- prune", "- prune: {ratio: 0.25}")
    recipe = recipe.replace("  - finetune: {epochs: 1, bn_batches: 2}\n", "")
    pico.project(folder, recipe)
    with pytest.MonkeyPatch.context() as patch:
        hasten(patch.setattr)
        patch.chdir(folder)
        patch.setenv("MODELSPEED_CACHE", str(folder / "cache"))
        assert run("apply", "ckpt.pt", "--threads", "1", "--out", "fast")[0] == 0
    return folder


@pytest.fixture
def measured(made, monkeypatch):
    """Sets what each go measures, in ms; the last one is repeated."""
    monkeypatch.chdir(made)
    state = {"runs": [1.0], "count": 0}

    def measure(run, *, percentile, **_):
        run()
        ms = state["runs"][min(state["count"], len(state["runs"]) - 1)]
        state["count"] += 1
        samples = tuple(ms * (1 + 0.0001 * (i % 5)) for i in range(50))
        return Latency(percentile, ms, ms, ms, samples)

    def set_to(*runs):
        state.update(runs=list(runs), count=0)
        return state

    monkeypatch.setattr(checking, "measure", measure)
    return set_to


def outcomes(out):
    return {c["name"]: c["outcome"] for c in json.loads(out)["cases"]}


def test_what_holds_passes_and_ci_gets_its_files(measured, made, tmp_path):
    measured(1.0)
    summary = tmp_path / "summary.md"
    summary.write_text("before\n")
    code, out, _ = run("check", "fast", "--target-ms", "1.5", "--max-drop", "1", "--json",
                       "--junit", tmp_path / "j.xml", "--summary", summary)  # fmt: skip
    assert code == 0 and outcomes(out) == {
        "artifact": "passed", "outputs": "passed", "latency": "passed", "accuracy": "passed",
    }  # fmt: skip
    assert ElementTree.parse(tmp_path / "j.xml").find("testsuite").get("failures") == "0"
    assert summary.read_text().startswith("before\n### modelspeed check")


def test_a_missed_target_is_3_one_within_the_interval_5_a_lost_accuracy_4(measured, made):
    measured(1.0)
    code, out, _ = run("check", "fast", "--target-ms", "0.9", "--json")
    assert code == 3 and outcomes(out)["latency"] == "failed"
    state = measured(*(1.2, 1.0, 1.1, 1.0, 1.2) * 2)
    code, out, _ = run("check", "fast", "--target-ms", "1.1002", "--json")
    assert code == 5 and outcomes(out)["latency"] == "inconclusive" and state["count"] == 10
    measured(1.0)
    manifest = made / "fast" / "modelspeed.json"
    text = manifest.read_text()
    data = json.loads(text)
    data["record"]["quality"]["baseline"] = 2.0
    manifest.write_text(json.dumps(data))
    try:
        code, out, _ = run("check", "fast", "--target-ms", "2", "--max-drop", "0.01", "--json")
    finally:
        manifest.write_text(text)
    assert code == 4 and outcomes(out)["accuracy"] == "failed"


def stored(made, tmp_path, ms, **machine):
    data = json.loads((made / "fast" / "report.json").read_text())
    data["final"].update(value_ms=ms, samples_ms=[ms * (1 + 0.0001 * (i % 5)) for i in range(50)])
    data["machine"].update(machine)
    path = tmp_path / "stored.json"
    path.write_text(json.dumps(data))
    return path


def test_a_regression_is_what_repeated_measurements_do_not_explain(measured, made, tmp_path):
    runs = (1.0, 1.01, 0.99, 1.0, 1.005)
    for before, code, outcome in ((0.7, 3, "failed"), (0.99, 0, "passed"), (1.4, 0, "passed")):
        measured(*runs)
        path = stored(made, tmp_path, before)
        found = run("check", "fast", "--target-ms", "9", "--against", path, "--json")
        assert (found[0], outcomes(found[1])["regression"]) == (code, outcome), before
    measured(1.0, 1.4, 0.8, 1.2, 0.9)  # the same gap on a machine that drifts more than that
    found = run("check", "fast", "--target-ms", "9", "--against", stored(made, tmp_path, 0.7),
                "--json")  # fmt: skip
    assert found[0] == 0
    path = stored(made, tmp_path, 0.7, cpu="another")
    found = run("check", "fast", "--target-ms", "9", "--against", path, "--json")
    assert found[0] == 5 and "cpu another then" in found[1]


def test_an_artifact_that_was_changed_is_an_error_in_the_files_too(measured, made, tmp_path):
    code, _, err = run("check", tmp_path, "--target-ms", "1", "--junit", tmp_path / "j.xml",
                       "--summary", tmp_path / "s.md")  # fmt: skip
    assert code == 1 and "is not an artifact" in err
    assert ElementTree.parse(tmp_path / "j.xml").find("testsuite").get("errors") == "1"
    assert "is not an artifact" in (tmp_path / "s.md").read_text()


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["--target-ms", "0"], "--target-ms"),
        (["--max-drop", "7"], "--max-drop"),
        (["--data", "data.txt"], "--data"),
        (["--threads", "1", "--device", "gpu"], "--device"),
    ],
)
def test_flags_that_can_not_be_are_usage_errors(measured, words, part):
    code, _, err = run("check", "fast", *words)
    assert code == 2 and part in err


def test_a_limit_of_accuracy_without_data_is_refused_not_passed(measured, made, monkeypatch):
    recipe = made / "modelspeed.yaml"
    text = recipe.read_text()
    recipe.write_text("version: 1\n")
    try:
        code, _, err = run("check", "fast", "--target-ms", "9", "--max-drop", "0.1")
        assert code == 2 and "needs data" in err
        code, out, _ = run("check", "fast", "--target-ms", "9", "--json")
        assert code == 0 and outcomes(out)["accuracy"] == "skipped"
    finally:
        recipe.write_text(text)


@pytest.mark.long
def test_doctor_prints_findings_or_json():
    code, out, _ = run("doctor", "--seconds", "0.5", "--threads", "1", "--json")
    found = json.loads(out)
    assert code == 0 and {"threads", "noise floor"} <= {f["what"] for f in found["findings"]}
    assert "noise floor" in run("doctor", "--seconds", "0.5", "--threads", "1")[1]
