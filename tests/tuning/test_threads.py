from __future__ import annotations

import json

import modelspeed
import pico
import pytest
import quick
import torch
from modelspeed.backends import inductor
from modelspeed.cli.main import app
from modelspeed.configs.machine import AUTO_THREADS, MachineFlags, resolve_target
from modelspeed.configs.recipe import Recipe
from modelspeed.core.errors import MachineWarning
from modelspeed.core.model_io import Inputs
from modelspeed.core.progress import Silent
from modelspeed.core.records import Latency, Machine, Target
from modelspeed.profiling.notices import CODES, no_compiler, other_machine
from modelspeed.tuning import threads
from typer.testing import CliRunner

AUTO = Target(auto_threads=True)
HERE = Machine("EPYC", 4, 2, "cpu", "float32", "2.13", "3.11", "Linux 6", "AVX2", "abc")


@pytest.fixture(autouse=True)
def threads_come_back():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def rows(**times):
    return {int(n[1:]): Latency(50.0, ms, ms, ms) for n, ms in times.items()}


def test_counts_are_powers_of_two_and_all_cores():
    assert [threads.counts(n) for n in (1, 2, 6, 8)] == [(1,), (1, 2), (1, 2, 4, 6), (1, 2, 4, 8)]


def test_the_fastest_count_is_taken_and_fewer_where_they_are_as_fast():
    assert threads.fewest(rows(t1=4.0, t2=2.5, t4=2.0, t6=2.6)) == 4
    assert threads.fewest(rows(t1=4.0, t2=2.03, t4=2.0)) == 2


@pytest.mark.parametrize(
    "target", [Target(), Target(threads=3, auto_threads=True), Target(device="cuda", threads=0)]
)
def test_nothing_is_measured_where_it_was_not_asked_for(target):
    assert threads.with_fastest(target, None, None, Silent()) == target


def test_the_choice_holds_for_this_process_and_is_written_down(monkeypatch):
    monkeypatch.setattr(threads, "measure_by_threads", lambda *_: rows(t1=3.0, t2=2.0))
    monkeypatch.setattr(threads, "first_ready", lambda *_: ("plain", None))
    target = threads.with_fastest(AUTO, None, Inputs.of((pico.images(),)), Silent())
    assert target.threads == 2 == torch.get_num_threads() and target.auto_threads


def test_each_count_is_in_force_while_it_is_timed(monkeypatch):
    seen = []

    def measure(runs, **_):
        for run in runs:
            run()
        return [None for _ in runs]

    monkeypatch.setattr(threads, "measure_interleaved", measure)
    monkeypatch.setattr(threads, "usable_cores", lambda: 2)
    before = torch.get_num_threads()
    model, inputs = lambda x: seen.append(torch.get_num_threads()), Inputs.of((pico.images(),))
    threads.measure_by_threads(model, inputs)
    assert seen == [1, 2] and torch.get_num_threads() == before


def test_auto_is_a_flag_and_nonsense_is_none():
    target = resolve_target(Recipe(), MachineFlags(threads=AUTO_THREADS))
    assert (target.threads, target.auto_threads) == (0, True)
    for word in ("0", "-1", "two", "1.5", ""):
        done = CliRunner().invoke(app, ["profile", "x.pt", "--threads", word])
        assert done.exit_code == 2 and "not a thread count" in " ".join(done.stderr.split())


def test_the_same_machine_is_no_warning_and_each_difference_is_named():
    from dataclasses import replace

    again = replace(HERE, system="Linux 7", python="3.12", dtype="int8", fingerprint="x")
    assert other_machine(HERE, again) is None
    notice = other_machine(HERE, replace(HERE, threads=4))
    assert "threads: 2, here 4" in notice.seen and "set_num_threads(2)" in notice.remedy
    notice = other_machine(HERE, replace(HERE, cpu="Xeon", isa="AVX512"))
    assert "CPU: EPYC, here Xeon" in notice.seen and "modelspeed tune" in notice.remedy
    assert {notice.code, no_compiler("inductor", "needs one").code} <= set(CODES)


@pytest.mark.long
def test_a_run_with_auto_says_its_count_and_loading_with_another_warns(tmp_path, monkeypatch):
    monkeypatch.setenv("MODELSPEED_CACHE", str(tmp_path / "cache"))
    quick.hasten(monkeypatch.setattr)
    monkeypatch.setattr(threads, "measure_by_threads", lambda *_: rows(t1=2.0, t2=3.0))
    checkpoint = pico.project(tmp_path / "user")
    words = ["apply", checkpoint, "--preset", "lossless", "--threads", "auto", "--json"]
    done = CliRunner().invoke(app, [*map(str, words), "--out", str(tmp_path / "fast")])
    record = json.loads(done.stdout)
    assert record["target"]["threads"] == record["machine"]["threads"] == 1
    assert "takes 1 (1: 2 ms, 2: 3 ms)" in done.stderr
    modelspeed.load(tmp_path / "fast")  # a warning would be an error here
    torch.set_num_threads(2)
    with pytest.warns(MachineWarning, match="threads: 1, here 2"):
        modelspeed.load(tmp_path / "fast")
    torch.set_num_threads(1)
    manifest = tmp_path / "fast" / "modelspeed.json"
    manifest.write_text(json.dumps({**json.loads(manifest.read_text()), "runtime": "inductor"}))
    monkeypatch.setattr(inductor, "lacks_compiler", lambda _: "needs a C++ compiler")
    with pytest.warns(MachineWarning, match="which needs a C"):
        modelspeed.load(tmp_path / "fast")
