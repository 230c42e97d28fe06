"""The batch is where the model has it, and no size that was given is put in its place."""

from __future__ import annotations

from types import SimpleNamespace

import modelspeed
import numpy as np
import pico
import pytest
import quick
import torch
from modelspeed.checkpoints.read import read
from modelspeed.checkpoints.samples import at_batch, draw_inputs, specs_of
from modelspeed.cli.main import app
from modelspeed.core.errors import UsageError
from modelspeed.core.records import Target
from modelspeed.graph.capture import capture, has_dynamic_batch
from modelspeed.tuning.batch_axes import settled
from modelspeed.tuning.job import Job, example_inputs
from torch import nn
from typer.testing import CliRunner


class Table(nn.Module):
    """Inputs of which one is a table that all examples share."""

    def forward(self, x, table):
        return x @ table


class Centered(nn.Module):
    """Examples see each other."""

    def forward(self, x):
        return x - x.mean()


class TwoTowers(nn.Module):
    """Each example of one input beside each of the other, as in contrastive models."""

    def forward(self, a, b):
        return a @ b.T


class PerFrame(nn.Module):
    """One example alone: its times look like examples."""

    def forward(self, x):
        return torch.tanh(x.squeeze(0))


class Masked(nn.Module):
    """The first call decides what the mask is for."""

    mask = None

    def forward(self, x):
        if self.mask is None:
            self.mask = torch.ones(x.shape[0], 1)
        return x * self.mask


def decoder():
    return nn.TransformerDecoder(nn.TransformerDecoderLayer(8, 2, 16), 1)


def job_of(model, *shapes, given=False, **spec):
    torch.manual_seed(0)
    specs = tuple({"shape": list(shape), "dtype": "float32", **spec} for shape in shapes)
    job = Job("net", Target(), inputs=specs, batch_given=given)
    return settled(job, SimpleNamespace(module=model.eval(), program=None))


@pytest.mark.parametrize(
    ("model", "shapes", "axes", "batch"),
    [
        (nn.Conv2d(3, 4, 3), [(5, 3, 8, 8)], [0], 5),
        (nn.LSTM(4, 6, batch_first=True), [(2, 7, 4)], [0], 2),
        (nn.LSTM(4, 6), [(7, 3, 4)], [1], 3),
        (nn.TransformerEncoderLayer(8, 2, 16), [(6, 1, 8)], [1], 1),
        (decoder(), [(5, 1, 8), (6, 1, 8)], [1, 1], 1),
        (Table(), [(1, 8), (8, 4)], [0, "none"], 1),
        (TwoTowers(), [(1, 8), (1, 8)], [0, 0], 1),
        (TwoTowers(), [(6, 8), (6, 8)], [0, 0], 6),
        (PerFrame(), [(1, 9, 4)], [0], 1),
        (Centered(), [(5, 3)], [0], 5),  # none is one; the first axis stands in
    ],
)
def test_the_axis_along_which_examples_do_not_see_each_other_is_the_batch(
    model, shapes, axes, batch
):
    job = job_of(model, *shapes)
    assert [spec["batch"] for spec in job.inputs] == axes
    assert [tuple(spec["shape"]) for spec in job.inputs] == shapes
    assert job.target.batch == batch


def test_what_is_said_is_not_looked_for_and_the_batch_asked_for_goes_there():
    job = job_of(nn.LSTM(4, 6), (7, 3, 4), batch=1)
    assert job.inputs[0]["batch"] == 1
    job = job_of(nn.LSTM(4, 6), (7, 3, 4), given=True)
    inputs = example_inputs(job, SimpleNamespace(program=None))
    assert inputs[0].shape == (7, 1, 4) and inputs.batch == 1


def test_a_capture_takes_any_batch_along_its_axis():
    model = nn.LSTM(4, 6).eval()
    specs = [{"shape": [7, 1, 4], "dtype": "float32", "batch": 1}]
    inputs = draw_inputs(specs, 0)
    graph = capture(model, inputs)
    assert has_dynamic_batch(graph, inputs)
    other = draw_inputs(at_batch(specs_of(inputs), 5), 1)
    assert other[0].shape == (7, 5, 4) and other.axes == (1,)
    with torch.no_grad():
        torch.testing.assert_close(graph(*other.args)[0], model(*other.args)[0])


def test_a_program_of_a_fixed_batch_is_measured_at_it(tmp_path):
    program = torch.export.export(nn.Conv2d(3, 4, 3).eval(), (torch.ones(2, 3, 8, 8),))
    torch.export.save(program, tmp_path / "fixed.pt2")
    source = read(tmp_path / "fixed.pt2")
    job = settled(Job("fixed.pt2", Target(), batch_given=False), source)
    assert job.target.batch == 2 and example_inputs(job, source)[0].shape == (2, 3, 8, 8)


def test_a_program_that_takes_any_batch_is_measured_at_one(tmp_path):
    batch = torch.export.Dim("batch", min=1)
    program = torch.export.export(
        nn.Conv2d(3, 4, 3).eval(), (torch.ones(2, 3, 8, 8),), dynamic_shapes=({0: batch},)
    )
    torch.export.save(program, tmp_path / "any.pt2")
    job = settled(Job("any.pt2", Target(), batch_given=False), read(tmp_path / "any.pt2"))
    assert job.target.batch == 1 and job.inputs[0]["batch"] == 0


def test_what_a_program_leaves_open_is_to_vary_but_for_the_batch(tmp_path):
    sizes = {0: torch.export.Dim("batch", min=1), 2: torch.export.Dim("side", min=4, max=40)}
    program = torch.export.export(
        nn.Conv2d(3, 4, 3).eval(), (torch.ones(2, 3, 8, 8),), dynamic_shapes=(sizes,)
    )
    torch.export.save(program, tmp_path / "open.pt2")
    job = settled(Job("open.pt2", Target(), batch_given=False), read(tmp_path / "open.pt2"))
    (spans,) = draw_inputs(job.inputs, 0).spans
    assert {axis: (span.low, span.high) for axis, span in spans.items()} == {2: (4, 40)}


MODEL = """
import torch
from torch import nn

class Last(nn.Module):
    def __init__(self):
        super().__init__()
        self.up = nn.Linear(4, 8)
        self.rnn = nn.LSTM(8, 6)
        self.head = nn.Linear(6, 3)

    def forward(self, x):
        return self.head(self.rnn(self.up(x).relu())[0][-1])

def build():
    return Last()
"""
RECIPE = """
version: 1
model: {factory: "model.py:build"}
inputs: [{shape: [7, 1, 4]}]
data: {factory: "arrays:data.npz", batch: 8}
limits: {max_drop: 1.0}
adjust: [{prune: {ratio: 0.5}}, compensate, {finetune: {epochs: 1}}]
"""


def test_a_run_on_data_along_the_second_axis_gives_an_artifact_of_any_batch(tmp_path, monkeypatch):
    monkeypatch.setenv("MODELSPEED_CACHE", str(tmp_path / "cache"))
    quick.hasten(monkeypatch.setattr)
    pico.project(tmp_path, RECIPE)
    (tmp_path / "model.py").write_text(MODEL)
    random = np.random.default_rng(0)
    labels = random.integers(0, 3, 48)
    rows = random.normal(size=(48, 7, 4)).astype("float32") + labels[:, None, None]
    np.savez(tmp_path / "data.npz", inputs=rows.astype("float32"), targets=labels)
    scope = {}
    exec(compile(MODEL, "model.py", "exec"), scope)
    torch.save(scope["build"]().state_dict(), tmp_path / "ckpt.pt")
    words = ["apply", str(tmp_path / "ckpt.pt"), "--out", str(tmp_path / "out"), "--json"]
    done = CliRunner().invoke(app, words)
    assert done.exit_code in (0, 5), done.output
    loaded = modelspeed.load(tmp_path / "out")
    assert loaded(torch.ones(7, 5, 4)).shape == (5, 3)


def test_looking_for_the_batch_leaves_nothing_in_the_model():
    model = Masked()
    job_of(model, (5, 3))
    assert model.mask is None


def test_a_batch_that_no_input_has_is_refused():
    with pytest.raises(UsageError, match="`batch` is 8, and no input has a batch"):
        specs = ({"shape": [4, 4], "dtype": "float32", "batch": "none"},)
        job = Job("net", Target(batch=8), inputs=specs, batch_given=True)
        settled(job, SimpleNamespace(module=nn.Linear(4, 4), program=None))
