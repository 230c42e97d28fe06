"""Code runs where a file of the user's own names it, with a word; nothing else makes code run."""

from __future__ import annotations

import json
import os

import modelspeed
import pico
import pytest
import torch
from modelspeed.cli import check_asked
from modelspeed.cli.main import app
from modelspeed.core.errors import ArtifactError
from modelspeed.core.records import Target
from modelspeed.core.records_json import to_json
from modelspeed.reporting.json import dumps
from sample_record import record
from typer.testing import CliRunner

OTHER = 12345
CODE = "from pathlib import Path\nPath(__file__).with_name('RAN-{}').touch()\n"
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files away")


def run(*words):
    done = CliRunner().invoke(app, [str(w) for w in words])
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    assert "Traceback" not in done.stderr and "unexpected" not in done.stderr
    return done.exit_code, done.stdout, done.stderr


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A checkpoint in `there`, with a recipe beside it whose files leave a mark when they run."""
    monkeypatch.delenv("SUDO_UID", raising=False)
    there = tmp_path / "there"
    there.mkdir()
    pico.project(there, pico.RECIPE.replace("- prune", "- prune: {ratio: 0.25}"))
    for name in ("model", "data"):
        file = there / f"{name}.py"
        file.write_text(CODE.format(name) + file.read_text())
    monkeypatch.chdir(tmp_path)
    return there


def ran(folder):
    return sorted(p.name for p in folder.iterdir() if p.name.startswith("RAN"))


def verbs(folder):
    (folder.parent / "jobs.yaml").write_text(
        "version: 1\nout: o\njobs: [{checkpoint: there/ckpt.pt, target_ms: 5}]\n"
    )
    found = {
        "tune": ("tune", folder / "ckpt.pt", "--target-ms", 5),
        "apply": ("apply", folder / "ckpt.pt"),
        "apply of a named recipe": ("apply", folder / "ckpt.pt", folder / "modelspeed.yaml"),
        "profile": ("profile", folder / "ckpt.pt"),
        "batch": ("batch", folder / "ckpt.pt", "--out", "o", "--target-ms", 5),
        "batch of a jobs file": ("batch", "jobs.yaml"),
    }
    return found


@as_root
@pytest.mark.parametrize("verb", ["tune", "apply", "apply of a named recipe", "profile", "batch",
                                  "batch of a jobs file"])  # fmt: skip
@pytest.mark.parametrize("place", ["modelspeed.yaml", "model.py", "."])
def test_code_that_another_user_decides_on_is_refused_by_each_verb(folder, verb, place):
    os.chown(folder / place, OTHER, -1)
    code, _, err = run(*verbs(folder)[verb])
    assert code == 2 and "--trust-code" in err and f"belongs to user {OTHER}" in err
    assert str(folder / "model.py") in err and err.count("\n") == 1
    assert ran(folder) == []


def test_a_folder_that_everybody_writes_to_is_refused(folder):
    folder.chmod(0o777)
    code, _, err = run("profile", folder / "ckpt.pt")
    assert code == 2 and "can be written by every user" in err and ran(folder) == []


@as_root
def test_the_flag_overrides_and_what_runs_is_one_line(folder):
    os.chown(folder / "model.py", OTHER, -1)
    code, _, err = run("profile", folder / "ckpt.pt", "--trust-code", "--threads", 1)
    assert code == 0, err
    (line,) = [t for t in err.splitlines() if t.startswith("running code")]
    assert str(folder / "model.py") in line and "data.py" not in line
    assert str(folder / "modelspeed.yaml") in line
    assert ran(folder) == ["RAN-model"]


def test_what_the_user_names_needs_no_word(folder):
    (folder / "modelspeed.yaml").unlink()
    named = f"{folder}/model.py:build"
    code, _, err = run("profile", folder / "ckpt.pt", "--model", named, "--inputs", "1x1x12x12",
                       "--threads", 1)  # fmt: skip
    assert code == 0 and "running code" not in err and ran(folder) == ["RAN-model"]


@as_root
def test_a_recipe_of_another_user_that_names_no_code_is_data(folder):
    text = (folder / "modelspeed.yaml").read_text().splitlines()
    kept = [t for t in text if not t.startswith(("model:", "data:"))]
    (folder / "modelspeed.yaml").write_text("\n".join(kept))
    os.chown(folder / "modelspeed.yaml", OTHER, -1)
    named = f"{folder}/model.py:build"
    assert run("profile", folder / "ckpt.pt", "--model", named, "--threads", 1)[0] == 0


def test_init_runs_nothing(folder):
    assert run("init", folder / "ckpt.pt", "--out", "new.yaml")[0] == 0
    assert ran(folder) == []


def test_a_name_of_a_file_adds_no_line_to_the_recipe_that_init_writes(folder):
    evil = folder / "a`: x\nmodel: {factory: 'evil.py:run'}\n#.pt"
    (folder / "ckpt.pt").rename(evil)
    assert run("init", evil, "--out", "new.yaml")[0] == 0
    assert "\nmodel: {factory: 'evil.py" not in (folder.parent / "new.yaml").read_text()


@pytest.fixture
def artifact(folder):
    """As far as `check` reads before it measures; its record says that `there` was its source."""
    out = folder.parent / "artifact"
    out.mkdir()
    found = to_json(record(source=str(folder / "ckpt.pt"), target=Target(ms=5.0)))
    manifest = {
        "format_version": 1, "inputs": [{"shape": [1, 1, 12, 12], "dtype": "float32"}],
        "sample": {"seed": 7, "outputs": []}, "edits": [], "runtime": "plain",
        "weights_sha256": "", "source_sha256": "", "record": found,
    }  # fmt: skip
    (out / "modelspeed.json").write_text(json.dumps(manifest))
    return out


def test_check_takes_no_recipe_that_the_artifact_names(folder, artifact):
    asked = check_asked.asked_for(artifact, {"threads": 1}, None)
    assert asked.recipe is None and ran(folder) == []


def test_check_takes_the_recipe_where_the_user_stands_and_says_so(folder, artifact, capsys,
                                                                  monkeypatch):  # fmt: skip
    monkeypatch.chdir(folder)
    asked = check_asked.asked_for(artifact, {"threads": 1}, None)
    assert asked.recipe is not None and asked.recipe.data.factory.startswith("data.py")
    assert str(folder / "data.py") in capsys.readouterr().err


def test_check_takes_no_recipe_of_the_artifacts_own_folder(folder, artifact, monkeypatch):
    for name in ("modelspeed.yaml", "data.py"):
        (artifact / name).write_text((folder / name).read_text())
    monkeypatch.chdir(artifact)
    assert check_asked.asked_for(artifact, {"threads": 1}, None).recipe is None


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("record", "target", "threads"), 100_000), (("record", "target", "threads"), -1),
        (("record", "target", "batch"), 10**18), (("record", "target", "batch"), 0),
        (("record", "target", "device"), "meta"), (("record", "target", "ms"), float("nan")),
        (("inputs",), []), (("runtime",), 3), (("record",), None), (("record", "target"), []),
        (("record", "baseline", "value_ms"), 10**400), (("sample", "outputs"), [[1]]),
        (("source_sha256",), 1), (("edits",), [[]]), (("sample", "seed"), 1e18),
    ],
)  # fmt: skip
def test_a_manifest_with_wrong_values_is_a_sentence_in_check_and_load(artifact, path, value):
    manifest = json.loads((artifact / "modelspeed.json").read_text())
    at = manifest
    for key in path[:-1]:
        at = at[key]
    at[path[-1]] = value
    (artifact / "modelspeed.json").write_text(json.dumps(manifest))
    threads = torch.get_num_threads()
    code, _, err = run("check", artifact)
    assert code == 1 and err.startswith("modelspeed: ") and err.count("\n") == 1
    assert (path[-1] in err or path[0] in err) and torch.get_num_threads() == threads
    with pytest.raises(ArtifactError):
        modelspeed.load(artifact)


def test_a_damaged_report_is_a_sentence_in_show_and_compare(tmp_path):
    for text in ("[" * 100_000, '{"baseline": 1}', "null", '{"seconds": ' + "9" * 400 + "}"):
        (tmp_path / "report.json").write_text(text)
        for words in (("show", tmp_path), ("compare", tmp_path, tmp_path)):
            code, _, err = run(*words)
            assert code == 1 and "record" in err and len(err) < 300


@pytest.mark.parametrize("form", ["md", "html", "csv", "json", "console"])
def test_show_takes_texts_that_utf8_does_not_know(tmp_path, form):
    (tmp_path / "report.json").write_text(dumps(record(source="\ud800.pt", summary="\udcff")))
    assert run("show", tmp_path, "--format", form)[0] == 0
