from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from modelspeed.profiling.machine import cpu_model, fingerprint, threads, usable_cores


def test_the_fingerprint_is_stable_and_depends_on_threads_and_dtype() -> None:
    with threads(1):
        machine = fingerprint()
        assert machine == fingerprint()
        assert machine.fingerprint != fingerprint(dtype=torch.bfloat16).fingerprint
    with threads(2):
        other = fingerprint()
    assert other.fingerprint != machine.fingerprint
    assert replace(other, threads=1, fingerprint="") == replace(machine, fingerprint="")
    assert machine.cpu and machine.isa and machine.dtype == "float32"
    assert len(machine.fingerprint) == 12
    assert 1 <= machine.cores == usable_cores()


def test_threads_are_restored() -> None:
    before = torch.get_num_threads()
    with threads(before + 1) as count:
        assert count == torch.get_num_threads() == before + 1
    assert torch.get_num_threads() == before
    with threads(0) as count:
        assert count == before


def test_the_cpu_is_named_from_cpuinfo(tmp_path: Path) -> None:
    path = tmp_path / "cpuinfo"
    path.write_text("cpu family\t: 25\nmodel\t\t: 17\nmodel name\t: AMD EPYC\n\nmodel name\t: B\n")
    assert cpu_model(path) == "AMD EPYC (family 25, model 17)"
    assert cpu_model(tmp_path / "absent")
