"""Nets that write in place or keep something between calls: what is reported is what is loaded."""

from __future__ import annotations

import json

import modelspeed
import pico
import pytest
import quick
import torch
from modelspeed.cli.main import app
from typer.testing import CliRunner

HEAD = "import torch\nfrom torch import nn\n"
PARTIAL = """
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(1, 8, 3, padding=1)
        self.part = nn.Conv2d(4, 4, 3, padding=1)
        self.head = nn.Linear(8, 3)

    def forward(self, x):
        x = self.stem(x)
        x[:, :4] = self.part(x[:, :4])
        return self.head(x.relu().mean((2, 3)))

def build():
    return Net()
"""
STREAM = """
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(2, 8, 3, padding=1)
        self.head = nn.Linear(8, 3)
        self.register_buffer("last", torch.zeros(1, 1, 12, 12))
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))

    def forward(self, x):
        self.count += 1
        seen = torch.cat([x, self.last.expand(x.shape[0], 1, 12, 12)], 1)
        self.last.copy_(x[:1])
        return self.head(self.conv(seen).relu().mean((2, 3)))

def build():
    return Net()
"""
RECIPE = """
version: 1
model: {factory: "model.py:build"}
inputs: [{shape: [1, 1, 12, 12]}]
data: {factory: "data.py:loaders"}
adjust: [channels_last, fold_batchnorm, flush_subnormals]
"""


def project(folder, source):
    """A user's folder with a net of this source, and the net."""
    pico.project(folder, RECIPE)
    (folder / "model.py").write_text(HEAD + source)
    scope = {}
    exec(compile(HEAD + source, "model.py", "exec"), scope)
    torch.manual_seed(1)
    model = scope["build"]().eval()
    torch.save(model.state_dict(), folder / "ckpt.pt")
    return folder, model


def run(folder, verb, *words):
    done = CliRunner().invoke(
        app, [verb, str(folder / "ckpt.pt"), *words, "--out", str(folder / "out"), "--json"]
    )
    assert done.stdout, done.output
    return json.loads(done.stdout)


@pytest.fixture(autouse=True)
def hastened(tmp_path, monkeypatch):
    monkeypatch.setenv("MODELSPEED_CACHE", str(tmp_path / "cache"))
    quick.hasten(monkeypatch.setattr)


@pytest.mark.parametrize(
    "words", [["apply"], pytest.param(["tune", "--target-ms", "1000"], marks=pytest.mark.long)]
)
@pytest.mark.parametrize("runtime", ["lowered", "plain"])
def test_what_is_loaded_gives_what_the_report_says(tmp_path, words, runtime):
    folder, model = project(tmp_path, PARTIAL)
    record = run(folder, *words, "--runtime", runtime)
    loaded, x = modelspeed.load(folder / "out"), pico.images(5)
    with torch.no_grad():
        torch.testing.assert_close(loaded(x), model(x), rtol=1e-4, atol=1e-5)
    assert record["quality"]["agreement"] == 1.0
    assert record["quality"]["final"] == record["quality"]["baseline"]


@pytest.mark.parametrize(
    "runtime", ["lowered", *(pytest.param(n, marks=pytest.mark.long) for n in ("plain", "onednn"))]
)
def test_state_is_saved_as_the_checkpoint_has_it_and_goes_on_from_there(tmp_path, runtime):
    folder, model = project(tmp_path, STREAM)
    record = run(folder, "apply")
    notice = next(n for n in record["notices"] if n["code"] == "keeps_state")
    assert "`count`" in notice["seen"] and "`last`" in notice["seen"]
    loaded = modelspeed.load(folder / "out", runtime=runtime)
    state = dict(loaded.named_buffers())
    assert int(state["count"]) == 0 and not state["last"].any()
    with torch.no_grad():
        for seed in range(4):
            x = pico.images(2, seed)
            torch.testing.assert_close(loaded(x), model(x), rtol=1e-4, atol=1e-5)
    assert int(dict(loaded.named_buffers())["count"]) == 4


def test_a_class_of_the_users_takes_over_weights_and_state(tmp_path):
    folder, model = project(tmp_path, STREAM)
    run(folder, "apply")
    loaded = modelspeed.load(folder / "out", model=model)
    assert int(loaded.count) == 0
