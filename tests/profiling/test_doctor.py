from __future__ import annotations

import random

import pytest
import torch
from modelspeed.core.checks import Examination
from modelspeed.core.records_json import from_json, to_json
from modelspeed.profiling.doctor import examine
from modelspeed.profiling.notices import Load


class Clock:
    """Calls take about 5 ms; `busy` others keep all cores busy."""

    def __init__(self, noise=0.0, busy=False):
        self.chance, self.noise, self.busy, self.seconds = random.Random(0), noise, busy, 0.0

    def time(self, run):
        ms = 5.0 * (1 + abs(self.chance.gauss(0, self.noise)))
        self.seconds += ms / 1e3
        return ms

    def now(self):
        return self.seconds

    def sleep(self, seconds):
        self.seconds += seconds

    def load(self):
        return Load(self.seconds, 0.0, 2.0 * self.seconds if self.busy else 0.0, 2)


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


def examined(tmp_path, clock=None, **files):
    for name, text in files.items():
        path = tmp_path / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return examine(1.0, clock or Clock(), cpu=tmp_path, cgroup=tmp_path)


def states(examination):
    return {f.what: f.state for f in examination.findings}


def test_a_quiet_machine_is_good_and_what_is_not_visible_is_said(tmp_path):
    examination = examined(tmp_path)
    rows = states(examination)
    assert rows["threads"] == rows["noise floor"] == rows["other programs"] == "good"
    assert rows["frequency governor"] == "good" and examination.floor == 0.0
    assert not {"turbo", "CPU quota", "hyper-threading"} & set(rows)
    assert from_json(Examination, to_json(examination), "examination") == examination


def test_each_thing_that_disturbs_is_found_with_what_helps(tmp_path):
    torch.set_num_threads(2)
    (tmp_path / "cpu.max").write_text("100000 100000\n")
    examination = examined(
        tmp_path, Clock(busy=True), cpu0__cpufreq__scaling_governor="powersave\n",
        intel_pstate__no_turbo="0\n", smt__active="1\n",
    )  # fmt: skip
    rows = states(examination)
    assert rows["CPU quota"] == rows["other programs"] == "bad"
    assert rows["frequency governor"] == rows["turbo"] == rows["hyper-threading"] == "watch"
    assert all(f.remedy for f in examination.findings if f.state != "good")
    remedy = next(f.remedy for f in examination.findings if f.what == "CPU quota")
    assert "`--threads 1`" in remedy


def test_a_noisy_machine_is_watched_or_bad(tmp_path):
    assert states(examined(tmp_path, Clock(noise=1.0)))["noise floor"] in ("watch", "bad")


def test_more_threads_than_cores_are_bad(tmp_path, monkeypatch):
    monkeypatch.setattr("modelspeed.profiling.doctor.usable_cores", lambda: 1)
    torch.set_num_threads(2)
    assert states(examined(tmp_path))["threads"] == "bad"
