"""The folder that is measured is the folder that is shipped: written once, then renamed."""

from __future__ import annotations

import json

import pico
import pytest
import quick
from modelspeed.checkpoints import staging
from modelspeed.cli.main import app
from modelspeed.tuning import delivery
from typer.testing import CliRunner

HEAVY = ("model.safetensors", "model.pt2")


@pytest.fixture
def counted(tmp_path, monkeypatch):
    """A run's complete writes and verifications in their order, with what was on the disk."""
    events = []
    monkeypatch.setenv("MODELSPEED_CACHE", str(tmp_path / "cache"))
    quick.hasten(monkeypatch.setattr)
    written, verify = staging._written, delivery.verify

    def write(folder, *args):
        facts = written(folder, *args)
        events.append(("write", inodes(folder)))
        return facts

    def measure(job, folder, *args):
        events.append(("verify", inodes(folder)))
        return verify(job, folder, *args)

    monkeypatch.setattr(staging, "_written", write)
    monkeypatch.setattr(delivery, "verify", measure)

    def go(*words):
        recipe = pico.RECIPE
        if words[0] == "apply":
            recipe = recipe.replace("- prune", "- prune: {ratio: 0.3}")
        checkpoint = pico.project(tmp_path / "user", recipe)
        out = tmp_path / "fast"
        words = [words[0], str(checkpoint), *words[1:], "--threads", "1", "--out", str(out)]
        done = CliRunner().invoke(app, words)
        assert out.is_dir(), done.output
        return out, events

    return go


def inodes(folder):
    return {name: (folder / name).stat().st_ino for name in HEAVY}


@pytest.mark.parametrize(
    "words",
    [
        ["apply"],
        pytest.param(["tune", "--target-ms", "1000"], marks=pytest.mark.long),
        pytest.param(["tune", "--target-ms", "0.0001"], marks=pytest.mark.long),
    ],
)
def test_each_verified_variant_is_written_once_and_one_of_them_is_shipped(counted, words):
    out, events = counted(*words)
    kinds = [kind for kind, _ in events]
    assert kinds == ["write", "verify"] * (len(kinds) // 2) and kinds
    assert all(events[i][1] == events[i + 1][1] for i in range(0, len(events), 2))
    assert inodes(out) in [files for kind, files in events if kind == "verify"]
    manifest = json.loads((out / "modelspeed.json").read_text())
    assert manifest["record"] == json.loads((out / "report.json").read_text())
    assert manifest["record"]["final"] is not None and (out / "recipe.yaml").is_file()


@pytest.mark.long
def test_another_runtime_is_verified_on_the_same_weights(counted, monkeypatch):
    """The fresh process refuses every lowering: nothing is exported a second time."""
    measure, refused = delivery.verify, []

    def strict(job, folder, *args):
        runtime = json.loads((folder / "modelspeed.json").read_text())["runtime"]
        if runtime != "plain":
            refused.append(runtime)
            raise delivery.OutputsDiffer("other outputs", runtime)
        return measure(job, folder, *args)

    monkeypatch.setattr(delivery, "verify", strict)
    out, events = counted("apply")
    record = json.loads((out / "report.json").read_text())
    assert [kind for kind, _ in events] == ["write", "verify"]
    assert record["runtime_used"] == "plain"
    left = {row["what"] for row in record["left_alone"]}
    assert {f"runtime `{name}`" for name in refused} <= left
