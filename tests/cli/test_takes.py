"""Flags are declared once: commands take the fields of dataclasses, files share help and bounds."""

from __future__ import annotations

from dataclasses import fields

import pytest
from modelspeed.cli.load_flags import LoadFlags
from modelspeed.cli.main import app
from modelspeed.cli.takes import Given
from modelspeed.configs import flags as f
from modelspeed.configs.jobs import JobSettings, JobsFile
from modelspeed.configs.machine import MachineFlags
from modelspeed.configs.recipe import Limits, TargetSpec
from modelspeed.core.errors import UsageError
from typer.main import get_command
from typer.testing import CliRunner

COMMANDS = get_command(app).commands
FLAGS = {v.option: v for v in vars(f).values() if isinstance(v, f.Flag)}


def options(command):
    return {p.opts[0]: p for p in COMMANDS[command].params if p.opts[0].startswith("--")}


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_each_flag_but_help_has_a_panel_and_reads_the_same_everywhere(command):
    for name, found in options(command).items():
        if not found.hidden:
            assert found.rich_help_panel in f.PANELS and found.help, name
        changed = command == "check" and name in ("--config", "--runtime", "--threads")
        if name in FLAGS and not found.hidden and not changed and name != "--threads":
            assert found.help == FLAGS[name].help, name


def test_the_panels_of_help_stand_in_one_order(monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    for command in COMMANDS:
        text = CliRunner().invoke(app, [command, "--help"]).stdout
        positions = [text.find(f"─ {panel} ─") for panel in f.PANELS]
        positions = [at for at in positions if at >= 0]
        assert positions and positions == sorted(positions), command


def test_a_command_has_the_defaults_of_the_dataclass_and_a_batch_has_none():
    usual = MachineFlags()
    for field in fields(MachineFlags):
        flag = f"--{field.name}"
        assert options("tune")[flag].default == getattr(usual, field.name)
        assert options("batch")[flag].default is None


def test_a_file_says_what_the_flag_says():
    for model, key, flag in (
        (JobSettings, "target_ms", f.TARGET_MS), (TargetSpec, "ms", f.TARGET_MS),
        (TargetSpec, "percentile", f.PERCENTILE), (JobSettings, "percentile", f.PERCENTILE),
        (Limits, "max_drop", f.MAX_DROP), (JobsFile, "workers", f.WORKERS),
    ):  # fmt: skip
        assert model.model_fields[key].description == flag.described
    assert set(JobSettings.model_fields) <= {
        field.name for kind in (LoadFlags, MachineFlags) for field in fields(kind)
    }


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["tune", "x.pt", "--target-ms", "inf"], "`--target-ms` is inf; it must be a finite"),
        (["tune", "x.pt", "--seed", "-1"], "`--seed` is -1; it must be at least 0"),
        (["tune", "x.pt", "--runtime", "lowred"], "did you mean `lowered`"),
        (["tune", "x.pt", "--threads", "some"], "is not a thread count"),
        (["doctor", "--threads", "0"], "`--threads` is 0"),
        (["doctor", "--device", "gpu"], "`--device` is 'gpu'"),
        (["batch", "x.pt", "--out", "o", "--workers", "0"], "`--workers` is 0; it must be at"),
        (["batch", "x.pt", "--out", "o", "--minutes", "0"], "`--minutes` is 0; it must be above"),
    ],
)
def test_a_flag_out_of_bounds_is_one_sentence_and_exit_code_2(tmp_path, monkeypatch, words, says):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.pt").write_bytes(b"")
    done = CliRunner().invoke(app, words)
    plain = " ".join(done.stderr.replace("│", " ").split())
    assert done.exit_code == 2 and says in plain and "Traceback" not in done.stderr


def test_what_is_given_wins_over_defaults_and_what_a_command_adds_over_both(tmp_path):
    given = Given({"device": "cuda", "seed": None, "target_ms": 3.0, "other": 1})
    assert given.make(MachineFlags, threads=2) == MachineFlags("cuda", 2)
    load = given.make(LoadFlags, checkpoint=tmp_path)
    assert (load.target_ms, load.ignore) == (3.0, ())
    with pytest.raises(UsageError, match="device"):
        Given({"device": "gpu"}).make(MachineFlags)
