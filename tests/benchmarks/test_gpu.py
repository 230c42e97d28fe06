"""The check for the day a GPU is there: its limits, its lines, and the same code on a CPU."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[2] / "benchmarks" / "gpu"))
import collect
import lines
import steps

GPU = steps.HERE
LINES = [
    {"kind": "engine", "net": "vit", "batch": 1, "engine": "eager", "ms": 3.0, "speedup": 1.0,
     "low": 0.9, "high": 1.1, "accuracy": 0.5, "error": 0.0, "ready_s": 0.1, "mib": 1,
     "sm_mhz": 1980.0, "notices": ["gpu_slowed"]},
    {"kind": "engine", "net": "vit", "batch": 1, "engine": "torch.compile", "missing": "no time"},
    {"kind": "command", "name": "tune-vit-b1", "command": "tune", "rc": 1, "verdict": None},
    {"kind": "command", "name": "profile", "command": "profile", "rc": 0, "verdict": "none",
     "machine": {"device": "cuda (NVIDIA H200)", "cpu": "c", "cores": 16, "torch": "2.11.0"},
     "runtimes": [{"name": "plain", "ms": 1.0, "ready_seconds": 0.0, "error": None}]},
    {"kind": "aa", "repeats": 20, "no_significant_change": 20, "device": "cuda",
     "no_significant_change_stopped_early": 19, "speedup_range": [0.99, 1.01],
     "measured_p50_ms": 0.1, "torch_benchmark_one_call_ms": 0.1},
    {"kind": "net", "net": "vit", "steps": 9, "accuracy": 0.5, "parameters": 86_000_000},
    {"kind": "pruning", "net": "resnet50", "batch": 32, "method": "modelspeed", "base": 0.9,
     "share": 0.1, "used": 0.97, "before": 0.5, "after": 0.9, "seconds": 30.0},
    {"kind": "step", "name": "tests", "rc": -9, "seconds": 60.0, "limit": 60, "late": True},
]  # fmt: skip


@pytest.fixture
def out(tmp_path, monkeypatch):
    monkeypatch.setenv("OUT", str(tmp_path))
    monkeypatch.setenv("MODELSPEED_GPU_SCRATCH", str(tmp_path / "scratch"))
    return tmp_path


def launched(*words, out):
    env = {**os.environ, "PYTHON": sys.executable, "OUT": str(out)}
    env |= {"MODELSPEED_GPU_SCRATCH": str(out / "scratch")}
    return subprocess.run(
        ["bash", str(GPU / "run.sh"), *words], env=env, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("part", [1, 2])
def test_the_limits_of_a_dry_run_add_up_to_less_than_its_time(part, out):
    done = launched("--plan", "--part", str(part), out=out)
    assert done.returncode == 0, done.stderr
    *rows, whole = [line.split() for line in done.stdout.splitlines()]
    assert int(whole[-2]) == sum(int(row[-2]) for row in rows) < steps.WHOLE[part]
    assert steps.WHOLE[1] == 8 * 60 and not (out / lines.NAME).exists()


def test_each_step_is_named_once_and_its_files_are_there():
    names = [step.name for step in steps.STEPS]
    assert len(set(names)) == len(names)
    for step in steps.STEPS:
        for words in (step.words, step.quick or ()):
            assert all((steps.ROOT / w).exists() for w in words if w.endswith((".py", ".pt")))
    found = {Path(name).name for name in steps.gpu_tests()}
    assert found >= {"test_timing.py", "test_recordings.py", "test_runs.py", "test_cuda_graph.py",
                     "test_sparsity_2_4.py", "test_gpu_state.py"}  # fmt: skip


def test_a_step_that_hangs_is_stopped_with_its_stacks_in_the_log(out, monkeypatch):
    monkeypatch.setattr(steps, "GRACE", 2)
    monkeypatch.setenv("PYTHONFAULTHANDLER", "1")
    hangs = "import threading\ndef waits():\n    threading.Event().wait()\nwaits()"
    assert not steps.run(steps.Step("hangs", 3, ("-c", hangs)), "cpu", False, out / "log.txt")
    assert not steps.run(steps.Step("fails", 9, ("-c", "1 / 0")), "cpu", False, out / "log.txt")
    assert steps.run(
        steps.Step("ends", 9, ("-c", "print('DEVICE')")), "cpu", False, out / "log.txt"
    )
    late, failed, ended = lines.read(out / lines.NAME)
    assert (late["name"], late["late"], failed["rc"], ended["rc"]) == ("hangs", True, 1, 0)
    log = (out / "log.txt").read_text()
    assert "in waits" in log and "ZeroDivisionError" in log


def test_tables_are_made_of_whatever_lines_there_are(out):
    for row in LINES:
        lines.emit(**row)
    lines.emit(**{**LINES[0], "ms": 2.0})
    with (out / lines.NAME).open("a") as file:
        file.write('{"kind": "engine", "net": "cut o')
    text = collect.tables(lines.read(out / lines.NAME))
    assert "NVIDIA H200" in text and "| tests | 60 | 60 | stopped |" in text
    assert "| eager | 2.000 | 1.00x (0.90–1.10) | 50.0 %" in text and "3.000" not in text
    assert "- left out: torch.compile (no time)" in text and "| 20 | 20 | 19 |" in text
    for cut in range(len(LINES) + 1):
        assert collect.tables(LINES[:cut]).startswith("Machine")


def test_the_same_code_runs_on_a_cpu(out):
    done = launched("--device", "cpu", "--quick", out=out)
    assert done.returncode == 0, done.stdout + (out / "log.txt").read_text()[-5000:]
    ended = [row["name"] for row in lines.read(out / lines.NAME) if row["kind"] == "step"]
    kinds = list(dict.fromkeys(step.kind for step in steps.STEPS))
    assert [name.partition("-")[0] for name in ended] == kinds
    rows = lines.read(out / lines.NAME)
    assert {row["net"] for row in rows if row["kind"] == "net"} == {"resnet50", "vit", "bert"}
    mine = {row["engine"]: row for row in rows if row["kind"] == "engine"}
    assert {"eager", "modelspeed, lowered"} <= set(mine)
    assert all(row["ms"] > 0 and row["error"] < 1e-3 for row in mine.values())
    assert "### Engines" in done.stdout


@pytest.mark.long
def test_every_step_runs_on_a_cpu(out):
    names = [step.name for step in steps.STEPS]
    done = launched("--device", "cpu", "--quick", "--only", *names, out=out)
    assert done.returncode == 0, done.stdout + (out / "log.txt").read_text()[-5000:]
    ended = {row["name"] for row in lines.read(out / lines.NAME) if row["kind"] == "step"}
    assert ended == {step.name for step in steps.STEPS}
