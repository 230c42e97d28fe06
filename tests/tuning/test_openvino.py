"""Whole runs on OpenVINO: searched, verified in a fresh process and shipped on it."""

from __future__ import annotations

import json

import modelspeed
import pico
import pytest
import quick
import torch
from modelspeed.cli.main import app
from typer.testing import CliRunner

pytest.importorskip("openvino")
pytestmark = pytest.mark.extras


@pytest.fixture
def project(tmp_path, monkeypatch):
    monkeypatch.setenv("MODELSPEED_CACHE", str(tmp_path / "cache"))
    quick.hasten(monkeypatch.setattr)
    ratio = pico.RECIPE.replace("- prune\n", "- prune: {ratio: 0.25}\n")
    recipe = ratio.replace("- fold_batchnorm\n", "- quantize\n  - fold_batchnorm\n")
    return pico.project(tmp_path / "user", recipe).parent


def run(*words):
    done = CliRunner().invoke(app, [str(w) for w in words])
    assert done.exit_code in (0, 3, 4, 5), done.output
    return json.loads(done.stdout)


def test_a_search_asked_for_openvino_times_builds_and_ships_on_it(project):
    words = ("--target-speedup", "1.3", "--runtime", "openvino", "--out", project / "out", "--json")
    record = run("tune", project / "ckpt.pt", *words)
    assert record["runtime_used"] == "openvino" and record["target"]["runtime"] == "openvino"
    assert record["closeness"]["error"] <= record["closeness"]["allowed"]
    kept = json.loads((project / "out" / "modelspeed.json").read_text())["converted_sha256"]
    assert set(kept) == {"model.openvino.xml", "model.openvino.bin"}
    module = modelspeed.load(project / "out")
    assert "`openvino`" in repr(module)
    x = pico.images(3)
    with torch.no_grad():
        wanted = modelspeed.load(project / "out", runtime="plain")(x)
        assert float((module(x) - wanted).abs().max()) <= 0.05 * float(wanted.abs().max())


def test_by_itself_the_fastest_is_taken_and_the_report_names_the_others(project):
    recipe = project / "modelspeed.yaml"
    recipe.write_text(recipe.read_text().split("adjust:")[0] + "adjust: [fold_batchnorm]\n")
    record = run("apply", project / "ckpt.pt", "--out", project / "out", "--json")
    times = {row["name"]: row["ms"] for row in record["runtimes"]}
    assert {"plain", "openvino"} <= set(times)
    assert [row["name"] for row in record["runtimes"] if row["chosen"]] == [record["runtime_used"]]
    # Two that are alike may end in either order; torch's own kernels take several times as long.
    assert times[record["runtime_used"]] < times["plain"]


@pytest.mark.long
def test_asked_for_torchs_kernels_nothing_else_is_tried(project):
    words = ("--runtime", "lowered", "--out", project / "out", "--json")
    record = run("apply", project / "ckpt.pt", *words)
    assert record["runtime_used"] != "openvino" and record["runtimes"] == []
