"""A ladder from one search, as the command makes it; what it measures is faked, what it writes,
checks, shows and exports is not."""

from __future__ import annotations

import json
from dataclasses import replace

import modelspeed
import pico
import pytest
import torch
from modelspeed.cli.main import app
from modelspeed.core.errors import MeasureError
from modelspeed.core.ladder_record import ladder_from_json
from modelspeed.core.records import Latency, Target
from modelspeed.tuning import check as checking
from modelspeed.tuning.baseline import Baseline
from modelspeed.tuning.job import Job
from modelspeed.tuning.ladder import build, measuring, staircase
from modelspeed.tuning.ladder import check as order
from quick import hasten
from typer.testing import CliRunner

TIMES = (8.0, 4.0)  # by rung, at batch 1


def run(*words):
    done = CliRunner().invoke(app, [str(w) for w in words])
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    assert "Traceback" not in done.stderr
    return done.exit_code, done.stdout, done.stderr


def exactly(ms):
    return Latency(50.0, ms, ms, ms, tuple(ms * (1 + 1e-4 * (i % 7)) for i in range(60)))


def in_this_process(request):
    return measuring.measure_rungs_here(replace(request, seconds=request.seconds and 10.0))


def by_size(baseline, original, graph, inputs, target, runtimes, attempts=2):
    """Lossless work takes 0.6 of the original's time, the narrower the less, whatever the machine
    does meanwhile."""
    whole, kept = (sum(p.numel() for p in m.parameters()) for m in (original, graph))
    ms = baseline.latency.value_ms * (0.2 + 0.4 * min(1.0, kept / whole))
    baseline.note(baseline.latency.value_ms)
    return Latency(50.0, ms, 0.999 * ms, 1.001 * ms), runtimes[0]


def project(folder, patch, recipe=pico.RECIPE):
    """A user's folder in which nothing takes long."""
    pico.project(folder, recipe)
    torch.set_num_threads(1)
    hasten(patch.setattr)
    patch.setattr(Baseline, "relative_latency", by_size)
    patch.chdir(folder)
    patch.setenv("MODELSPEED_CACHE", str(folder / "cache"))
    patch.setattr(build, "measure_rungs", in_this_process)
    patch.setattr(
        staircase, "measure_interleaved",
        lambda runs, batch, **_: [exactly(TIMES[i] * batch**0.95) for i in range(len(runs))],
    )  # fmt: skip


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ladder")
    recipe = pico.RECIPE.replace("  - finetune: {epochs: 1, bn_batches: 2}\n", "")
    with pytest.MonkeyPatch.context() as patch:
        project(folder, patch, recipe)
        words = ("--speedups", "1,1.5,2", "--threads", "1", "--runtime", "plain", "--json")
        code, out, err = run("ladder", "ckpt.pt", *words)
    return folder, code, out, err


@pytest.fixture
def here(made, monkeypatch):
    monkeypatch.chdir(made[0])
    return made[0]


def test_it_writes_a_ladder_that_loads_and_answers(made):
    folder, code, out, err = made
    record = ladder_from_json(out)
    assert code == 5, err  # 2x, which is faked as 1.9 to 2.1
    assert [r.name for r in record.rungs] == ["0-original", "1-2x"]
    assert record.rungs[1].target.speedup == 2.0 and record.rungs[0].target.speedup is None
    assert record.memory_bytes == sum(r.memory_bytes for r in record.rungs)
    assert record.rungs[0].batches == record.rungs[1].batches == (1, 2, 4)
    assert record == ladder_from_json((folder / "ckpt-ladder" / "ladder.json").read_text())
    ladder = modelspeed.load(folder / "ckpt-ladder")
    y, how = ladder.answer(pico.images(2), budget_ms=1e9)
    assert y.shape == (2, 3) and how.rung in (0, 1)
    alone = modelspeed.load(folder / "ckpt-ladder" / "rungs" / "1-2x")
    sizes = [sum(p.numel() for p in m.parameters()) for m in (alone, ladder.rungs[0])]
    assert sizes[0] < sizes[1]


def test_one_search_serves_all_and_what_gives_no_rung_is_said(made):
    folder, _, out, err = made
    assert err.count("ranking channel groups ...") == 1
    assert err.count("timing layers at other widths ...") == 1
    left = {row.what: row.reason for row in ladder_from_json(out).left_out}
    assert left["1.5x"] == "`original` meets it already"
    names = {p.name for p in folder.iterdir()} - {"__pycache__"}
    assert names == {"model.py", "data.py", "modelspeed.yaml", "ckpt.pt", "cache", "ckpt-ladder"}
    files = sorted(p.name for p in (folder / "ckpt-ladder").iterdir())
    assert files == ["ladder.json", "report.html", "report.md", "rungs"]
    assert not list((folder / "cache" / "runs").glob("*/*"))


def test_it_does_not_replace_a_ladder_unless_told_so(here):
    code, _, err = run("ladder", "ckpt.pt", "--trust-code")
    assert code == 2 and "--force" in err


def test_a_recipe_without_lossy_steps_makes_no_rungs(here):
    (here / "exact.yaml").write_text(
        pico.RECIPE.partition("adjust")[0] + "adjust: [fold_batchnorm]\n"
    )
    code, _, err = run("ladder", "ckpt.pt", "--config", "exact.yaml", "--out", "other")
    (here / "exact.yaml").unlink()
    assert code == 2 and "nothing to make rungs of" in err


def test_show_renders_the_folder_and_its_record(here):
    code, out, _ = run("show", "ckpt-ladder")
    assert code == 0 and "0-original" in out
    stored = (here / "ckpt-ladder" / "ladder.json").read_text()
    assert json.loads(run("show", "ckpt-ladder", "--format", "json")[1]) == json.loads(stored)
    for format, words in (("md", "# modelspeed ladder"), ("html", "<svg"), ("csv", "p50_ms")):
        assert words in run("show", "ckpt-ladder/ladder.json", "--format", format)[1]


def test_export_takes_a_rung_and_puts_it_beside_the_ladder(here):
    code, _, err = run("export", "ckpt-ladder")
    assert code == 2 and "`--rung`: 0-original, 1-2x" in err
    assert run("export", "ckpt-ladder", "--rung", "2")[0] == 2
    assert run("export", "ckpt-ladder/rungs/1-2x", "--rung", "1")[0] == 2
    code, out, err = run("export", "ckpt-ladder", "--rung", "1", "--json")
    path = here / "ckpt-ladder-1-2x.pt2"
    assert code == 0 and json.loads(out)["path"] == str(path), err
    assert torch.export.load(path).module()(pico.images(1)).shape == (1, 3)
    path.unlink()


@pytest.mark.parametrize(
    ("times", "code", "outcome"),
    [((8.0, 4.0), 0, "passed"), ((4.0, 8.0), 3, "failed"), ((4.0, 4.0), 5, "inconclusive")],
)
def test_check_asks_each_rung_and_whether_the_order_holds(here, monkeypatch, times, code, outcome):
    monkeypatch.setattr(checking, "measure", lambda run, **_: exactly(1.0))
    monkeypatch.setattr(
        order, "measure_interleaved", lambda runs, **_: [exactly(ms) for ms in times]
    )
    found, out, err = run("check", "ckpt-ladder", "--json", "--junit", "j.xml")
    (here / "j.xml").unlink()
    cases = {case["name"]: case for case in json.loads(out)["cases"]}
    assert found == code and cases["order"]["outcome"] == outcome, err
    for rung in ("0-original", "1-2x"):
        assert cases[f"{rung}: artifact"]["outcome"] == "passed"
        assert cases[f"{rung}: outputs"]["outcome"] == "passed"


@pytest.fixture
def measured(monkeypatch):
    def measure(run, *, percentile, **_):
        return replace(exactly(1.0), percentile=percentile)

    monkeypatch.setattr(checking, "measure", measure)
    times = [exactly(8.0), exactly(4.0)]
    monkeypatch.setattr(order, "measure_interleaved", lambda runs, **_: times)


def test_check_holds_a_rung_to_the_ratio_that_it_met_as_that_was_measured(here, measured):
    path = here / "ckpt-ladder" / "ladder.json"
    before = path.read_text()
    path.write_text(before.replace('"verdict": "inconclusive"', '"verdict": "met"'))
    try:
        _, out, err = run("check", "ckpt-ladder", "--json")
        cases = {case["name"]: case for case in json.loads(out)["cases"]}
        assert cases["1-2x: latency"]["outcome"] != "skipped", err
        for words in (("--percentile", "90"), ("--batch", "2")):
            code, _, err = run("check", "ckpt-ladder", *words)
            assert code == 2 and f"`1-2x` is a ratio at its own {words[0][2:]}" in err
    finally:
        path.write_text(before)


def test_check_measures_a_rung_without_a_target_as_it_is_told(here, measured):
    code, out, err = run("check", "ckpt-ladder", "--percentile", "90", "--json")
    cases = {case["name"]: case for case in json.loads(out)["cases"]}
    assert code == 0, err
    for rung in ("0-original", "1-2x"):
        assert cases[f"{rung}: latency"]["text"].startswith("p90 is")
        assert cases[f"{rung}: latency"]["outcome"] == "skipped"


def test_check_takes_no_target_for_all_of_them(here):
    code, _, err = run("check", "ckpt-ladder", "--target-ms", "5")
    assert code == 2 and "target of its own" in err


def test_simulate_tells_what_a_load_takes_and_how_many_machines(here):
    load = ("--arrivals", "poisson:200", "--slo-ms", "12", "--seconds", "4")
    code, out, err = run("ladder", "simulate", "ckpt-ladder", *load, "--replicas", "1..3", "--json")
    assert code == 0, err
    found = json.loads(out)
    assert list(found) == ["ladder", "0-original", "1-2x"]
    assert [row["replicas"] for row in found["ladder"]] == [1, 2, 3]
    assert found["ladder"][0]["attainment"] > found["0-original"][0]["attainment"]
    code, out, _ = run("ladder", "simulate", "ckpt-ladder", *load)
    assert code == 0 and "in time" in out
    for words in (("--replicas", "3..1"), ("--arrivals", "often")):
        assert run("ladder", "simulate", "ckpt-ladder", *load, *words)[0] == 2


@pytest.mark.long
def test_a_run_that_was_stopped_after_its_rungs_goes_on_without_a_search(tmp_path, monkeypatch):
    project(tmp_path, monkeypatch)
    words = ("ladder", "ckpt.pt", "--speedups", "2", "--threads", "1", "--json")

    def stopped(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(build, "_assembled", stopped)
        code, _, err = run(*words)
    assert code == 130 and "--resume" in err and "fine-tuning ..." in err
    assert not (tmp_path / "ckpt-ladder").exists()
    assert not [p for p in tmp_path.iterdir() if "tmp-modelspeed" in p.name]
    code, out, err = run(*words, "--resume")
    assert code == 5 and "taken from the journal" in err, err
    assert "fine-tuning ..." not in err and "tried:" not in err
    assert [r.name[:2] for r in ladder_from_json(out).rungs] == ["0-", "1-"]


def request_of(folder, seconds=2.0, checkpoint="ckpt.pt"):
    job = Job(
        str(folder / checkpoint), Target(threads=1, runtime="plain"), "model.py:build",
        str(folder), inputs=({"shape": [1, 1, 12, 12], "dtype": "float32"},),
    )  # fmt: skip
    rungs = sorted((folder / "ckpt-ladder" / "rungs").iterdir())
    recipe = pico.RECIPE.replace("- prune", "- prune: {ratio: 0.25}")
    return measuring.RungsRequest(job, tuple(map(str, rungs)), recipe, seconds)


@pytest.mark.long
def test_without_time_only_memory_and_cascades_are_measured(here):
    found = measuring.measure_rungs_here(request_of(here, 0.0))
    assert [rung.batches for rung in found.rungs] == [(), ()]
    assert found.memory_bytes == sum(rung.memory_bytes for rung in found.rungs)
    assert [(c.low, c.high) for c in found.cascades] == [(1, 0)]


@pytest.mark.long
def test_a_fresh_process_measures_all_rungs_and_says_what_it_fails_with(here):
    found = measuring.measure_rungs(request_of(here))
    for rung in found.rungs:
        assert [row.batch for row in rung.batches][:2] == [1, 2]
        assert all(ms > 0 for row in rung.batches for ms in row.samples_ms)
    with pytest.raises(MeasureError, match=r"fresh process: .*nowhere\.pt"):
        measuring.measure_rungs(request_of(here, checkpoint="nowhere.pt"))
