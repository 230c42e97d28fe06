"""Where an artifact may be written, what force may replace, and what tampering is noticed."""

from __future__ import annotations

import errno
import json
import os
import stat
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import killing
import pytest
import torch
from modelspeed.checkpoints import staging
from modelspeed.checkpoints.artifact import check_writable, read_artifact
from modelspeed.checkpoints.staging import save
from modelspeed.cli.finish import record_at
from modelspeed.core.errors import ArtifactError, UsageError
from modelspeed.core.model_io import Inputs
from modelspeed.core.records import Latency, Machine, Record, Target
from safetensors import SafetensorError
from torch import nn

torch.set_num_threads(1)
RECORD = Record(
    "tune", "now", "0", "m.pt", "0" * 64, Machine("c", 1, 1, "cpu", "float32", "2", "3", "l"),
    Target(), "none", "", Latency(50, 1, 1, 1),
)  # fmt: skip


RECIPE = "version: 1\n"


def tied() -> torch.export.ExportedProgram:
    model = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3), nn.Linear(3, 3)).eval()
    model[2].weight = model[0].weight
    batch = torch.export.Dim("batch", min=1, max=64)
    return torch.export.export(model, (torch.randn(2, 3),), dynamic_shapes=({0: batch},))


def write(folder: Path, force: bool = False) -> Path:
    return save(
        folder, program=tied(), edits=[], record=RECORD, recipe_yaml=RECIPE,
        inputs=Inputs((torch.randn(2, 3),)), runtime="plain", reports={"report.md": "x"},
        force=force,
    )  # fmt: skip


def test_shared_weights_and_a_dynamic_batch_survive_the_round_trip(tmp_path):
    program = read_artifact(write(tmp_path / "new" / "a"), verify=True).program
    weights = program.state_dict
    assert torch.equal(weights["0.weight"], weights["2.weight"])
    assert program.module()(torch.randn(5, 3)).shape == (5, 3)


def test_nothing_written_needs_more_than_weights_only(tmp_path, monkeypatch):
    folder, load, seen = write(tmp_path / "a"), torch.load, []

    def strict(file, *args, **kwargs):
        seen.append(kwargs.get("weights_only"))
        return load(file, *args, **{**kwargs, "weights_only": True})

    monkeypatch.setattr(torch, "load", strict)
    read_artifact(folder, verify=True)
    assert seen and all(seen)


def test_checking_makes_nothing(tmp_path):
    check_writable(tmp_path / "x" / "y", False)
    assert not list(tmp_path.iterdir())


def test_folders_that_cannot_be_made_are_refused_early(tmp_path):
    (tmp_path / "file").write_text("x")
    (tmp_path / "link").symlink_to(tmp_path)
    with pytest.raises(UsageError, match="is a file"):
        check_writable(tmp_path / "file", True)
    with pytest.raises(UsageError, match="is a link"):
        check_writable(tmp_path / "link", True)
    for folder in (tmp_path / "file" / "out", Path("/proc/none/out")):
        with pytest.raises(ArtifactError, match="can't be written"):
            check_writable(folder, False)


def test_force_replaces_an_artifact_and_nothing_else(tmp_path):
    folder = write(tmp_path / "a")
    with pytest.raises(UsageError, match="--force"):
        write(folder)
    write(folder, force=True)
    (folder / "thesis.txt").write_text("mine")
    with pytest.raises(UsageError, match=r"`thesis.txt`"):
        write(folder, force=True)
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "thesis.txt").write_text("mine")
    with pytest.raises(UsageError, match="not an artifact"):
        write(tmp_path / "home", force=True)
    assert (folder / "thesis.txt").exists() and len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize("where", ["save_file", "write_program", "sha256"])
@pytest.mark.parametrize(
    ("error", "raised"),
    [
        (KeyboardInterrupt(), KeyboardInterrupt),
        (OSError(errno.ENOSPC, "No space left on device"), ArtifactError),
        (SafetensorError("I/O error: No space left on device"), ArtifactError),
    ],
)
def test_a_failed_write_leaves_no_trace_not_even_parents(
    tmp_path, monkeypatch, where, error, raised
):
    def fail(*_args: object) -> None:
        raise error

    monkeypatch.setattr(staging, where, fail)
    with pytest.raises(raised) as caught:
        write(tmp_path / "x" / "a")
    assert not list(tmp_path.iterdir())
    assert raised is KeyboardInterrupt or "the disk is full" in str(caught.value)


# In a process of its own, which forks: pytest's has threads of torch.
WALK = """
import importlib.util, json, shutil, sys
from pathlib import Path
import killing
spec = importlib.util.spec_from_file_location("here", sys.argv[2])
here = importlib.util.module_from_spec(spec)
spec.loader.exec_module(here)

root = Path(sys.argv[1])
here.write(root / "kept")
here.RECIPE = "new"

def prepare():
    for path in root.glob("*out*"):
        shutil.rmtree(path)
    shutil.copytree(root / "kept", root / "out")
    return lambda: here.write(root / "out", force=True)

rows = []
for point in killing.every(killing.killed, prepare, root, step=5):
    here.read_artifact(root / "out", verify=True)
    at_once = (root / "out" / "recipe.yaml").read_text()
    here.check_writable(root / "out", force=True)
    rows.append([at_once, sorted(p.name for p in root.iterdir())])
print(json.dumps(rows))
"""


def test_a_kill_while_saving_over_an_artifact_leaves_one_that_loads(tmp_path):
    env = {**os.environ, "PYTHONPATH": str(Path(killing.__file__).parent)}
    done = subprocess.run([sys.executable, "-c", WALK, str(tmp_path), __file__], env=env,
                          capture_output=True, text=True)  # fmt: skip
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)
    assert {row[0] for row in rows} == {"version: 1\n", "new"} and len(rows) > 5
    assert all(row[1] == ["kept", "out"] for row in rows)


def test_what_an_earlier_version_had_moved_away_is_found_by_who_reads(tmp_path):
    folder = write(tmp_path / "a")
    for find in (read_artifact, lambda path: check_writable(path, True), record_at):
        folder.rename(tmp_path / ".a.old-modelspeed-7")
        with suppress(ArtifactError):
            find(folder)
        assert [p.name for p in tmp_path.iterdir()] == ["a"]


def test_all_files_have_the_mode_of_the_umask(tmp_path):
    before = os.umask(0o022)
    try:
        folder = write(tmp_path / "a")
    finally:
        os.umask(before)
    assert {stat.S_IMODE(p.stat().st_mode) for p in folder.iterdir()} == {0o644}


def test_a_full_disk_does_not_end_the_process_in_torchs_writer():
    """Its destructor throws, which is the end of the process; so this test would end pytest."""
    with pytest.raises(OSError, match="No space left"):
        staging.write_program(Path("/dev/full"), tied())


def change(folder: Path, **values: object) -> None:
    manifest = json.loads((folder / "modelspeed.json").read_text())
    (folder / "modelspeed.json").write_text(json.dumps({**manifest, **values}))


def test_tampering_is_noticed(tmp_path):
    folder = write(tmp_path / "a")
    sample = {"seed": 7, "outputs": [9.0] * 6}
    for values, words in [
        ({"sample": sample}, "stored sample"),
        ({"weights_sha256": "0"}, "changed after"),
        ({"format_version": 99}, "format version 99"),
    ]:
        change(folder, **values)
        with pytest.raises(ArtifactError, match=words):
            read_artifact(folder, verify=True)


def test_a_program_of_another_model_is_noticed(tmp_path):
    folder = write(tmp_path / "a")
    other = torch.export.export(nn.Linear(3, 1).eval(), (torch.randn(2, 3),))
    torch.export.save(other, folder / "model.pt2")
    with pytest.raises(ArtifactError, match="changed since"):
        read_artifact(folder)
    change(folder, program_sha256=None, graph_sha256=None)  # as of older artifacts
    with pytest.raises(ArtifactError, match="not of one artifact"):
        read_artifact(folder)
