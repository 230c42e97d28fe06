"""Compiled code in an artifact: quick where it was made, never run where it came from elsewhere."""

from __future__ import annotations

import json
from dataclasses import replace

import modelspeed
import pico
import pytest
import quick
import torch
from modelspeed.backends import aoti, inductor
from modelspeed.backends.compiler import lacks_compiler
from modelspeed.backends.inductor import INDUCTOR
from modelspeed.backends.shape_guard import ShapeGuarded, for_inputs
from modelspeed.backends.trust import is_trusted, trust
from modelspeed.checkpoints import staging
from modelspeed.checkpoints.artifact import read_artifact
from modelspeed.cli.main import app
from modelspeed.core.errors import ArtifactError, MachineWarning, MeasureError
from modelspeed.core.files import PACKAGE
from modelspeed.core.model_io import Inputs
from modelspeed.core.records import Comparison, Latency, Record, Target
from modelspeed.graph.capture import capture, export_program
from modelspeed.profiling.machine import fingerprint
from modelspeed.runtime.loaded import running
from modelspeed.tuning import compare_backends
from torch import nn
from typer.testing import CliRunner

ONE = Inputs.of((torch.ones(1, 3),))
RECORD = Record(
    "tune", "now", "0", "m.pt", "0" * 64, fingerprint(), Target(), "none", "", Latency(50, 1, 1, 1)
)
pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")


class Bare(nn.Module):
    """Compiled here and now."""

    def __init__(self, module, usual, inputs):
        super().__init__()
        self.usual = usual

    def forward(self, x):
        return self.usual(x)


def loaded(folder, **options):
    return running(modelspeed.load(folder, **options))


def net(bias=0.0):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)).eval()
    nn.init.constant_(model[2].bias, bias)
    return model


def save(folder, package=b"native", machine=RECORD.machine, model=None):
    machine = replace(machine, threads=torch.get_num_threads()) if machine else machine
    return staging.save(
        folder, program=export_program(model or net(), ONE), edits=[],
        record=replace(RECORD, machine=machine), recipe_yaml="version: 1\n", inputs=ONE,
        runtime=INDUCTOR, reports={}, force=True, package=package,
    )  # fmt: skip


@pytest.fixture(autouse=True)
def world(monkeypatch, tmp_path):
    """A cache of its own, a compiler that takes no time, and what was opened."""
    monkeypatch.setenv("MODELSPEED_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(inductor, "compiled", Bare)
    load, ran = aoti.load_package, []

    def watched(package, usual, module, inputs):
        ran.append(package)
        if package == b"native":
            return for_inputs(usual, module, inputs, lambda x: [usual(x)])
        return load(package, usual, module, inputs)

    monkeypatch.setattr(aoti, "load_package", watched)
    return ran


@pytest.mark.skipif(lacks_compiler("cpu") is not None, reason="no C++ compiler")
@pytest.mark.filterwarnings("ignore")  # what torch's compiler says to itself
@pytest.mark.long
def test_a_package_made_here_loads_without_compiling_and_gives_the_same(tmp_path):
    module = capture(net(), ONE)
    package = aoti.build_package(module, ONE)
    trust(package)
    loaded = modelspeed.load(save(tmp_path / "fast", package))
    assert isinstance(running(loaded), ShapeGuarded)
    running(loaded).usual = None
    x = torch.randn(1, 3)
    torch.testing.assert_close(loaded(x), module(x))
    with pytest.warns(MachineWarning, match="does not reproduce the stored sample"):
        other = loaded(save(tmp_path / "other", package, model=net(bias=9.0)))
    assert isinstance(other, Bare)


def test_code_from_elsewhere_is_not_run_unless_it_is_trusted(tmp_path, world):
    folder = save(tmp_path / "fast")
    with pytest.warns(MachineWarning, match="which was not run"):
        assert isinstance(loaded(folder), Bare)
    trust(b"another")
    with pytest.warns(MachineWarning, match="trust_compiled=True"):
        assert isinstance(loaded(folder), Bare)
    assert world == []
    assert isinstance(loaded(folder, trust_compiled=True), ShapeGuarded)
    trust(b"native")
    assert isinstance(loaded(folder), ShapeGuarded) and world == [b"native"] * 2


def test_code_for_another_machine_is_not_run_even_if_it_is_trusted(tmp_path, world):
    folder = save(tmp_path / "fast", machine=replace(RECORD.machine, isa="AVX9"))
    with pytest.warns(MachineWarning, match="instructions: AVX9"):
        assert isinstance(loaded(folder, trust_compiled=True), Bare)
    manifest = folder / "modelspeed.json"
    manifest.write_text(json.dumps({**json.loads(manifest.read_text()), "record": {}}))
    assert isinstance(loaded(folder, trust_compiled=True), Bare) and world == []


def test_a_package_that_was_changed_is_refused_and_one_that_was_deleted_is_not_missed(tmp_path):
    folder = save(tmp_path / "fast")
    (folder / PACKAGE).write_bytes(b"other native")
    for read in (lambda: modelspeed.load(folder), lambda: read_artifact(folder, verify=True)):
        with pytest.raises(ArtifactError, match=r"aoti\.pt2` is not the one"):
            read()
    modelspeed.load(folder, runtime="plain")
    (folder / PACKAGE).unlink()
    read_artifact(folder, verify=True)
    assert isinstance(loaded(folder), Bare)
    save(folder)  # `--force` knows the file as ours


@pytest.mark.long
@pytest.mark.skipif(lacks_compiler("cpu") is not None, reason="no C++ compiler")
def test_a_run_stores_what_it_compiled_and_remembers_it(tmp_path, monkeypatch):
    quick.hasten(monkeypatch.setattr)
    monkeypatch.setattr(compare_backends, "blob_of", lambda *_: b"native")
    monkeypatch.setattr(
        compare_backends.Order, "comparison", lambda *_: Comparison(2.0, 2.0, 2.0, "faster")
    )
    words = ["apply", pico.project(tmp_path / "user"), "--preset", "lossless", "--threads", "1",
             "--runtime", INDUCTOR, "--out", tmp_path / "fast"]  # fmt: skip
    done = CliRunner().invoke(app, list(map(str, words)))
    assert done.exit_code == 0, done.output
    assert (tmp_path / "fast" / PACKAGE).is_file() and is_trusted(b"native")
    assert isinstance(loaded(tmp_path / "fast"), ShapeGuarded)


def test_a_package_that_does_not_open_is_said_and_compiled_anew(tmp_path):
    folder = save(tmp_path / "fast", b"no package")
    with pytest.warns(MachineWarning, match="can't be loaded"):
        assert isinstance(loaded(folder, trust_compiled=True), Bare)


def test_what_the_compiler_does_not_take_is_one_sentence(monkeypatch):
    def fail(*_):
        raise RuntimeError("no kernel for this\nand a long trace")

    monkeypatch.setattr(aoti, "write_package", fail)
    with pytest.raises(MeasureError, match=r"fails on this model: no kernel for this$"):
        aoti.build_package(capture(net(), ONE), ONE)
