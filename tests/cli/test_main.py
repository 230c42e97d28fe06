"""The tool as a user calls it: what it prints, writes and exits with."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import modelspeed
import pico
import pytest
import torch
from modelspeed.cli.main import app
from typer.testing import CliRunner


def run(*words, cwd=None):
    """In this process: exit code, stdout and stderr."""
    here = os.getcwd()
    if cwd:
        os.chdir(cwd)
    try:
        result = CliRunner().invoke(app, [str(w) for w in words])
    finally:
        os.chdir(here)
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stdout, result.stderr


def sentence(stderr):
    lines = [t for t in stderr.splitlines() if t.startswith("modelspeed: ")]
    assert lines and "Traceback" not in stderr, stderr
    return " ".join(lines)


@pytest.fixture
def folder(tmp_path, tmp_path_factory, monkeypatch):
    # One for all tests: timings of layers are made once.
    monkeypatch.setenv("MODELSPEED_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
    return pico.project(tmp_path / "user").parent


def left_in(folder):
    return {p.name for p in folder.iterdir()} - {"__pycache__"}


@pytest.mark.long
def test_an_unreachable_target_saves_the_best_effort_and_exits_3(folder):
    code, out, _ = run("tune", folder / "ckpt.pt", "--target-ms", "0.001", "--out", folder / "fast",
                       "--json", "--threads", "1")  # fmt: skip
    record = json.loads(out)
    assert code == 3 and record["verdict"] == "missed"
    assert "smallest latency reachable" in record["summary"]
    assert record["smallest_reachable_ms"] > 0.001
    assert [s["adjuster"] for s in record["steps"]] == ["prune", "finetune", "fold_batchnorm"]
    assert record["parameters_after"] < record["parameters_before"]
    wanted = {"model.safetensors", "modelspeed.json", "model.pt2", "model.graph.json",
              "recipe.yaml", "report.json", "report.md", "report.html"}  # fmt: skip
    assert left_in(folder / "fast") == wanted
    assert left_in(folder) == {"ckpt.pt", "model.py", "data.py", "modelspeed.yaml", "fast"}
    fresh = (
        "import torch, sys; m = torch.export.load(sys.argv[1]).module(); x = torch.ones(2,1,12,12);"
    )
    fresh += "assert 'modelspeed' not in sys.modules; print(m(x).flatten().tolist())"
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", fresh, folder / "fast/model.pt2"],
                          capture_output=True, text=True, check=True)  # fmt: skip
    with torch.no_grad():
        here = modelspeed.load(folder / "fast")(torch.ones(2, 1, 12, 12)).flatten()
    torch.testing.assert_close(here, torch.tensor(json.loads(done.stdout)), rtol=1e-5, atol=1e-5)
    for form, part in (("md", "What was done"), ("html", "<svg"), ("json", '"verdict"')):
        code, out, _ = run("show", folder / "fast", "--format", form)
        assert code == 0 and (part in out or form == "html")
    code, out, _ = run("compare", folder / "fast", folder / "fast")
    assert code == 0 and "No significant change" in out


@pytest.mark.long
def test_widths_and_number_formats_go_together_in_one_run(folder):
    recipe = pico.RECIPE.replace('build"}', 'build", args: {width: 48}}').replace("[1, 1", "[4, 1")
    pico.project(folder, recipe + "  - quantize\n  - precision\n")
    model = {}
    exec(compile(pico.MODEL_FILE, "model.py", "exec"), model)
    torch.save(model["build"](48).state_dict(), folder / "ckpt.pt")
    code, out, err = run("tune", folder / "ckpt.pt", "--target-ms", "0.001", "--out",
                         folder / "fast", "--json", "--threads", "1", "--batch", "4")  # fmt: skip
    record = json.loads(out)
    assert code == 3, err
    steps = {s["adjuster"]: s for s in record["steps"]}
    kept = [n for n in ("quantize", "precision") if steps[n]["status"] == "kept"]
    assert len(kept) <= 1 and all(steps[n]["reason"] for n in ("quantize", "precision"))
    formats = {c["label"].partition(", ")[2] for c in record["candidates"]} - {""}
    assert formats <= {"bfloat16", "int8_static"} and len(formats) >= len(kept)
    x = torch.ones(4, 1, 12, 12)
    assert torch.isfinite(modelspeed.load(folder / "fast")(x)).all()


@pytest.mark.long
def test_a_target_above_the_baseline_does_only_lossless_work(folder):
    code, out, _ = run("tune", folder / "ckpt.pt", "--target-ms", "1000", "--out", folder / "fast",
                       "--json", "--threads", "1")  # fmt: skip
    record = json.loads(out)
    assert code == 0 and record["verdict"] == "met"
    assert "already meets the target" in record["summary"]
    assert record["parameters_after"] == pytest.approx(record["parameters_before"], rel=0.1)
    skipped = {s["adjuster"]: s["status"] for s in record["steps"]}
    assert skipped["prune"] == skipped["finetune"] == "skipped"
    assert record["quality"]["agreement"] == 1.0


def test_apply_runs_the_recipe_as_written_and_scaling_changes_no_latency(folder):
    words = ["--preset", "scale_half", "--out", folder / "half", "--json", "--threads", "1"]
    code, out, _ = run("apply", folder / "ckpt.pt", *words, "--runtime", "plain")
    record = json.loads(out)
    assert code in (0, 4)
    assert [s["adjuster"] for s in record["steps"]] == ["finetune", "scale", "finetune"]
    assert "change no latency" in record["summary"]
    assert record["macs_after"] == record["macs_before"]


def test_profile_lists_layers_and_init_writes_a_recipe_that_validates(folder):
    code, out, _ = run("profile", folder / "ckpt.pt", "--json", "--threads", "1")
    record = json.loads(out)
    assert code == 0 and any(row["macs"] > 0 for row in record["layers_before"])
    code, _, _ = run("init", folder / "ckpt.pt", "--out", folder / "new.yaml")
    assert code == 0
    from modelspeed.configs.load import load_recipe

    assert load_recipe(folder / "new.yaml").model.factory == "model.py:build"


@pytest.mark.long
def test_without_data_only_lossless_steps_run_and_accuracy_is_called_unknown(folder):
    recipe = (
        (folder / "modelspeed.yaml").read_text().replace('data: {factory: "data.py:loaders"}', "")
    )
    (folder / "modelspeed.yaml").write_text(recipe)
    code, out, _ = run("tune", folder / "ckpt.pt", "--target-ms", "1000", "--out", folder / "fast",
                       "--json", "--threads", "1")  # fmt: skip
    record = json.loads(out)
    assert code == 0 and not record["quality"]["known"]
    rows = {s["adjuster"]: s for s in record["steps"]}
    assert list(rows) == ["prune", "finetune", "fold_batchnorm"]
    for name in ("prune", "finetune"):
        assert rows[name]["status"] == "skipped" and "`--without-data`" in rows[name]["reason"]
    assert "unknown" in (folder / "fast" / "report.md").read_text()


@pytest.mark.long
def test_apply_has_a_row_for_a_step_that_wants_data_where_there_is_none(folder):
    recipe = "version: 1\nmodel: {factory: 'model.py:build'}\ninputs: [{shape: [1, 1, 12, 12]}]\n"
    (folder / "modelspeed.yaml").write_text(
        recipe + "adjust:\n  - quantize: {scheme: int8_static}\n  - fold_batchnorm\n"
    )
    words = ["apply", folder / "ckpt.pt", "--out", folder / "fast", "--json", "--threads", "1"]
    code, _, err = run(*words)
    assert code == 2 and "`quantize`" in err and not (folder / "fast").exists()
    code, out, _ = run(*words, "--without-data")
    first, second = json.loads(out)["steps"]
    assert code in (0, 4) and (first["adjuster"], first["status"]) == ("quantize", "skipped")
    assert "needs training data" in first["reason"] and second["status"] == "kept"
    assert "needs training data" in (folder / "fast" / "report.md").read_text()


def nan_weights(folder):
    state = torch.load(folder / "ckpt.pt")
    state["0.weight"][0] = float("nan")
    torch.save(state, folder / "ckpt.pt")


MISTAKES = {
    "truncated file": (1, "truncated", lambda f: (f / "ckpt.pt").write_bytes(
        (f / "ckpt.pt").read_bytes()[:-900])),
    "wrong file": (1, "not a checkpoint", lambda f: (f / "ckpt.pt").write_text("hello")),
    "missing factory": (2, "there is no file", lambda f: (f / "model.py").unlink()),
    "no factory": (1, "--model FILE.py:factory", lambda f: (f / "modelspeed.yaml").write_text(
        "version: 1\ninputs: [{shape: [1, 1, 12, 12]}]\n")),
    "unknown key": (2, "`limits`", lambda f: (f / "modelspeed.yaml").write_text(
        pico.RECIPE.replace("limits:", "limit:"))),
    "empty data": (1, "empty", lambda f: (f / "modelspeed.yaml").write_text(
        pico.RECIPE.replace("data.py:loaders", "data.py:empty"))),
    "nan in the weights": (1, "NaN", nan_weights),
    "unwritable output": (1, "can't be written", lambda f: (f / "out").write_text("")),
}  # fmt: skip


@pytest.mark.parametrize("mistake", sorted(MISTAKES))
def test_a_mistake_gives_one_sentence_an_exit_code_and_leaves_nothing(folder, mistake):
    code, part, spoil = MISTAKES[mistake]
    spoil(folder)
    before = left_in(folder)
    found, out, err = run("tune", folder / "ckpt.pt", "--target-ms", "1", "--out", folder / "out/x")
    assert (found, out) == (code, "") and part in sentence(err)
    assert left_in(folder) - {"out"} == before - {"out"}
    assert not (folder / "out").is_dir() or not any((folder / "out").iterdir())


@pytest.mark.long
def test_ctrl_c_in_mid_run_leaves_nothing(folder):
    words = ["-m", "modelspeed", "tune", "ckpt.pt", "--target-ms", "0.001", "--out", "o"]
    process = subprocess.Popen(
        [sys.executable, *words],
        cwd=folder,
        stderr=subprocess.PIPE,
        text=True,
        # A test run in the background of a shell hands down that Ctrl-C is to be ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    for line in process.stderr:
        if "searching" in line:
            break
    process.send_signal(signal.SIGINT)
    rest = process.communicate(timeout=60)[1]
    assert process.returncode == 130
    assert "stopped; nothing was written" in rest and "Traceback" not in rest
    assert rest.endswith(f"modelspeed {' '.join(words[2:])} --resume\n")
    assert left_in(folder) == {"ckpt.pt", "model.py", "data.py", "modelspeed.yaml"}


def test_help_starts_in_under_half_a_second_even_on_a_busy_machine():
    started = time.monotonic()
    subprocess.run([sys.executable, "-m", "modelspeed", "--help"], check=True, capture_output=True)
    # 0.15 s on an idle machine; benchmarks/startup.py states the figure.
    assert time.monotonic() - started < 1.5


def test_list_names_every_adjuster_and_preset():
    code, out, _ = run("list", "--json")
    answer = json.loads(out)
    assert code == 0 and {"prune", "scale"} <= set(answer["adjusters"])
    assert {"balanced", "lossless", "scale_half"} <= set(answer["presets"])
    assert run("list")[0] == 0


def test_profile_lists_the_channel_groups_with_the_reason_of_frozen_ones(folder):
    words = ["profile", folder / "ckpt.pt", "--groups", "--threads", "1"]
    code, out, _ = run(*words, "--json")
    groups = json.loads(out)["groups"]
    assert code == 0 and any(g["frozen"] is None and g["size"] > 1 for g in groups)
    assert any("model's output" in (g["frozen"] or "") for g in groups)
    assert all(g["members"] for g in groups)
    code, out, _ = run(*words)
    assert code == 0 and "Channel groups" in out and "why it stays whole" in out


PAIR = """
import torch
from torch import nn

class Pair(nn.Module):
    def __init__(self):
        super().__init__()
        self.token, self.up = nn.Embedding(50, 256), nn.Linear(256, 1024)
        self.head = nn.Linear(1024, 3)

    def forward(self, ids, mask=None):
        x = torch.relu(self.up(self.token(ids))) * mask[..., None]
        return {"logits": self.head(x.sum(1)), "hidden": x.sum(1)}

def build():
    torch.manual_seed(0)
    return Pair()
"""


@pytest.mark.long
def test_a_model_with_keywords_and_several_outputs_goes_through_the_whole_tool(tmp_path):
    (tmp_path / "pair.py").write_text(PAIR)
    scope = {}
    exec(PAIR, scope)
    torch.save(scope["build"]().state_dict(), tmp_path / "pair.pt")
    code, out, err = run(
        "tune", tmp_path / "pair.pt", "--model", tmp_path / "pair.py:build", "--threads", "1",
        "--inputs", "ids=1x64:int64:0..49,mask=1x64:float32", "--target-ms", "1000",
        "--out", tmp_path / "fast", "--json",
    )  # fmt: skip
    assert code == 0, err
    assert json.loads(out)["quality"]["agreement"] == 1.0
    loaded = modelspeed.load(tmp_path / "fast")
    given = {"ids": torch.tensor([[49, 0, 7, 3] * 16] * 3), "mask": torch.ones(3, 64)}
    with torch.no_grad():
        got, want = loaded(**given), scope["build"]().eval()(**given)
    assert got.keys() == want.keys()
    torch.testing.assert_close(got, want)
    rebuilt = modelspeed.load(tmp_path / "fast", model=scope["build"]())
    with torch.no_grad():
        torch.testing.assert_close(rebuilt(**given), want)


@pytest.mark.long
def test_the_fastest_within_the_accuracy_limit(folder):
    words = ["tune", folder / "ckpt.pt", "--fastest", "--max-drop", "0.9", "--threads", "1"]
    code, out, _ = run(*words, "--out", folder / "fast", "--json")
    record = json.loads(out)
    assert (
        code == 0 and record["target"]["fastest"] and "within an accuracy drop" in record["summary"]
    )
    assert record["parameters_after"] < record["parameters_before"]
    tried = [c for c in record["candidates"] if c["predicted_ms"] is not None]
    assert tried and all(c["accuracy"] is not None for c in tried)
    assert "goal of its own" in sentence(run(*words, "--target-ms", "1")[2])
    assert "`--max-drop` is 3" in sentence(run(*words[:3], "--max-drop", "3")[2])


@pytest.mark.long
def test_a_model_that_nothing_can_be_taken_from_gets_lossless_work_and_the_gap(folder):
    words = ["tune", folder / "ckpt.pt", "--target-ms", "0.0001", "--threads", "1", "--json"]
    recipe = (folder / "modelspeed.yaml").read_text()
    (folder / "whole.yaml").write_text(recipe.replace("- prune", '- prune: {match: {"*": skip}}'))
    code, out, err = run(*words, "--config", folder / "whole.yaml", "--out", folder / "whole")
    assert code == 3, err
    assert "nothing in this recipe can trade" in json.loads(out)["summary"]


def test_a_job_told_to_end_leaves_nothing(folder):
    words = ["-m", "modelspeed", "tune", "ckpt.pt", "--target-ms", "0.001", "--out", "o"]
    process = subprocess.Popen(
        [sys.executable, *words], cwd=folder, stderr=subprocess.PIPE, text=True
    )
    for line in process.stderr:
        if "searching" in line:
            break
    process.send_signal(signal.SIGTERM)
    assert "nothing was written" in process.communicate(timeout=60)[1]
    assert process.returncode == 130
    assert left_in(folder) == {"ckpt.pt", "model.py", "data.py", "modelspeed.yaml"}
