"""Written whole or not at all; read with its hashes checked."""

from __future__ import annotations

import errno

import modelspeed
import pico
import pytest
import torch
from modelspeed.checkpoints import artifact, staging
from modelspeed.core.errors import ArtifactError, UsageError
from modelspeed.core.model_io import Inputs
from modelspeed.core.records import Latency, Record, Target
from modelspeed.graph.analysis.groups import analyze, keep_units
from modelspeed.graph.capture import capture, clone, export_program
from modelspeed.graph.edits.apply import apply, edits_to_json
from modelspeed.profiling.machine import fingerprint

RECORD = Record(
    kind="tune", created="now", version="0", source="m.pt", source_sha256="0",
    machine=fingerprint(), target=Target(), verdict="none",
    summary="", baseline=Latency(50, 1, 1, 1),
)  # fmt: skip


def pruned():
    original = capture(pico.net(["residual"]), (pico.images(1),))
    edits = keep_units(analyze(original), {g.name: [1] for g in analyze(original).prunable})
    return apply(clone(original), edits), edits


def save(folder, *, force=False, runtime="onednn"):
    module, edits = pruned()
    inputs = (pico.images(1),)
    return staging.save(
        folder, program=export_program(module, inputs), edits=edits_to_json(edits), record=RECORD,
        recipe_yaml="version: 1\n", inputs=Inputs.of(inputs), runtime=runtime,
        reports={"report.md": "# hi"},
        force=force,
    )  # fmt: skip


@pytest.mark.parametrize("runtime", ["plain", "onednn"])
def test_an_artifact_loads_with_equal_outputs_and_any_batch(tmp_path, runtime):
    save(tmp_path / "a", runtime=runtime)
    module, _ = pruned()
    loaded = modelspeed.load(tmp_path / "a")
    with torch.no_grad():
        for batch in (1, 4):
            x = pico.images(batch)
            torch.testing.assert_close(loaded(x), module(x), rtol=1e-5, atol=1e-5)
    assert torch.export.load(tmp_path / "a" / "model.pt2").module()(pico.images(2)).shape == (2, 3)


def test_edits_replay_on_the_users_own_class(tmp_path):
    save(tmp_path / "a")
    module, _ = pruned()
    loaded = modelspeed.load(tmp_path / "a", model=pico.net(["residual"], seed=9))
    with torch.no_grad():
        torch.testing.assert_close(loaded(pico.images()), module(pico.images()))
    with pytest.raises(ArtifactError):
        modelspeed.load(tmp_path / "a", model=pico.net(["residual"], width=4))


def test_changed_weights_are_noticed(tmp_path):
    save(tmp_path / "a")
    file = tmp_path / "a" / "model.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(ArtifactError, match="changed after it was written"):
        modelspeed.load(tmp_path / "a")
    with pytest.raises(ArtifactError, match="not an artifact"):
        modelspeed.load(tmp_path)


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(errno.ENOSPC, "No space left")])
def test_an_interrupted_write_leaves_nothing_and_keeps_what_was_there(tmp_path, monkeypatch, error):
    save(tmp_path / "a")
    before = {p.name: p.read_bytes() for p in (tmp_path / "a").iterdir()}

    def fail(*_args, **_kwargs):
        raise error

    monkeypatch.setattr(artifact.torch.export, "save", fail)
    with pytest.raises((KeyboardInterrupt, ArtifactError)):
        save(tmp_path / "a", force=True)
    assert [p.name for p in tmp_path.iterdir()] == ["a"]
    assert {p.name: p.read_bytes() for p in (tmp_path / "a").iterdir()} == before


def test_what_is_there_is_only_replaced_by_force_and_only_if_it_is_an_artifact(tmp_path):
    save(tmp_path / "a")
    with pytest.raises(UsageError, match="--force"):
        save(tmp_path / "a")
    save(tmp_path / "a", force=True)
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "thesis.tex").touch()
    with pytest.raises(UsageError, match="not an artifact"):
        save(tmp_path / "home", force=True)
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="is a file"):
        artifact.check_writable(tmp_path / "file", True)
    with pytest.raises(ArtifactError, match="can't be written"):
        artifact.check_writable(tmp_path / "file" / "below", False)
