"""The flags of `profile`: each is used or refused, and `--out` is written whole."""

from __future__ import annotations

import json

import pico
import pytest
import torch
from modelspeed.cli.main import app
from modelspeed.reporting import json as record_json
from quick import hasten
from typer.testing import CliRunner


@pytest.fixture
def run(tmp_path, monkeypatch):
    hasten(monkeypatch.setattr)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MODELSPEED_CACHE", str(tmp_path / "cache"))
    pico.project(tmp_path)

    def go(*words):
        done = CliRunner().invoke(app, ["profile", *map(str, words), "--threads", "1"])
        assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
        return done.exit_code, done.stdout, done.stderr

    return go


def test_out_is_the_record_that_json_prints_or_the_report_of_a_browser(run, tmp_path):
    code, out, err = run("ckpt.pt", "--out", "p.json", "--json")
    assert code == 0 and "written to p.json" in err
    assert json.loads((tmp_path / "p.json").read_text()) == json.loads(out)
    assert record_json.loads((tmp_path / "p.json").read_text()).kind == "profile"
    code, out, _ = run("ckpt.pt", "--out", "p.HTML")
    page = (tmp_path / "p.HTML").read_text()
    assert code == 0 and "original" in out and page.startswith("<!doctype html>")
    assert "id='layers'" in page


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--data", "data.py:loaders"], "takes no `--data`"),
        (["--out", "."], "a folder; name a file"),
        (["--out", "nowhere/p.json"], "there is no folder `nowhere`"),
        (["--out", "old.json"], "already exists; pass `--force`"),
        (["--percentile", "99.99"], "at least 0.1 and at most 99.9"),
        (["--batch", "0"], "`--batch` is 0"),
    ],
)
def test_what_would_be_dropped_or_lost_is_refused_before_measuring(run, tmp_path, words, says):
    (tmp_path / "old.json").write_text("mine")
    code, out, err = run("ckpt.pt", *words)
    assert (code, out) == (2, "") and says in " ".join(err.split()) and "measuring" not in err
    assert (tmp_path / "old.json").read_text() == "mine"


def test_force_replaces_a_file(run, tmp_path):
    (tmp_path / "old.json").write_text("mine")
    assert run("ckpt.pt", "--out", "old.json", "--force")[0] == 0
    assert json.loads((tmp_path / "old.json").read_text())["kind"] == "profile"


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_an_archive_that_runs_as_it_is_takes_no_factory_and_leaves_nothing_out(run, tmp_path):
    torch.jit.script(torch.nn.Linear(2, 2)).save(tmp_path / "s.pt")
    for flags in (["--model", "model.py:build"], ["--ignore", "x"]):
        code, _, err = run("s.pt", "--inputs", "1x2", *flags)
        assert code == 2 and f"it takes no `{flags[0]}`" in " ".join(err.split())
