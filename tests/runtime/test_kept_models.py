"""Artifacts that hold what OpenVINO or ONNX Runtime runs: opened as it is, converted again where
that is not to be."""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import replace

import modelspeed
import pico
import pytest
import torch
from modelspeed.backends import onnxruntime, openvino
from modelspeed.backends.registry import backend_of, kept_model
from modelspeed.checkpoints.staging import save
from modelspeed.core.errors import ArtifactError, MachineWarning, MeasureError
from modelspeed.core.model_io import Inputs
from modelspeed.core.records import Latency, Record, Target
from modelspeed.graph.capture import capture, export_program
from modelspeed.profiling.machine import fingerprint
from torch import nn

ONE = Inputs.of(pico.images(1))
FILES = {"openvino": "model.openvino.bin", "onnxruntime": "model.onnx"}
CONVERTING = {"openvino": (openvino, "convertible"), "onnxruntime": (onnxruntime, "onnx_program")}


def net(scale=1.0):
    torch.manual_seed(3)
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(200, 3)).eval()
    with torch.no_grad():
        model[0].weight *= scale
    return model


@pytest.fixture(scope="module", params=FILES)
def artifact(request, tmp_path_factory):
    name, folder = request.param, tmp_path_factory.mktemp("kept") / "a"
    pytest.importorskip(name)
    files = kept_model(capture(net(), ONE), ONE, name)
    save(
        folder, program=export_program(net(), ONE), edits=[], record=record(), converted=files,
        recipe_yaml="version: 1\n", inputs=ONE, runtime=name, reports={}, force=False,
    )  # fmt: skip
    return name, folder


@pytest.fixture
def changing(artifact, tmp_path):
    name, folder = artifact
    shutil.copytree(folder, tmp_path / "b")
    return name, tmp_path / "b"


def same(module, count=1):
    x = pico.images(count)
    torch.testing.assert_close(module(x), net()(x).detach(), rtol=1e-4, atol=1e-5)


def never(*_, **__):
    raise AssertionError("it was converted again")


def test_loading_converts_nothing(artifact, monkeypatch):
    name, folder = artifact
    with monkeypatch.context() as patch:
        patch.setattr(*CONVERTING[name], never)
        module = modelspeed.load(folder)
    assert f"`{name}`" in repr(module)
    same(module)
    same(module, 3)


@pytest.mark.parametrize("artifact", ["openvino"], indirect=True)
def test_what_the_library_refuses_is_converted_again(artifact, monkeypatch):
    name, folder = artifact

    def refuse(*_):
        raise MeasureError("a newer version wrote it")

    monkeypatch.setattr(type(backend_of(name)), "reopened", refuse)
    with pytest.warns(MachineWarning, match="a newer version wrote it.*converted again"):
        module = modelspeed.load(folder)
    assert f"`{name}`" in repr(module)
    same(module)


def test_files_that_were_changed_are_noticed(changing):
    name, folder = changing
    file = folder / FILES[name]
    file.write_bytes(file.read_bytes()[:-1] + b"\0\0")
    with pytest.raises(ArtifactError, match="changed since"):
        modelspeed.load(folder)
    file.unlink()
    with pytest.raises(ArtifactError, match="changed since"):
        modelspeed.load(folder)


@pytest.mark.parametrize("artifact", ["openvino"], indirect=True)
def test_files_of_another_model_are_not_used(changing):
    """Whoever writes the manifest, too, gets no other answers."""
    name, folder = changing
    manifest = json.loads((folder / "modelspeed.json").read_text())
    for file, content in kept_model(capture(net(2.0), ONE), ONE, name).items():
        (folder / file).write_bytes(content)
        manifest["converted_sha256"][file] = hashlib.sha256(content).hexdigest()
    (folder / "modelspeed.json").write_text(json.dumps(manifest))
    with pytest.warns(MachineWarning, match="differ.*converted again"):
        module = modelspeed.load(folder)
    assert f"`{name}`" in repr(module)
    same(module)


def test_without_the_library_it_runs_on_torch_with_a_warning(artifact, monkeypatch):
    name, folder = artifact
    for question in ("lacks", "opens_files"):
        answer = "needs the package" if question == "lacks" else False
        monkeypatch.setattr(type(backend_of(name)), question, lambda *_, a=answer: a)
    with pytest.warns(MachineWarning, match="needs the package"):
        module = modelspeed.load(folder)
    assert f"`{name}`" not in repr(module)
    same(module)


def test_a_manifest_names_no_other_files(changing):
    _, folder = changing
    manifest = json.loads((folder / "modelspeed.json").read_text())
    for odd in ({"../../etc/passwd": "0"}, {"model.pt2": "0"}, ["model.onnx"], {"model.onnx": 1}):
        (folder / "modelspeed.json").write_text(json.dumps({**manifest, "converted_sha256": odd}))
        with pytest.raises(ArtifactError, match="converted_sha256"):
            modelspeed.load(folder)


def record():
    machine = replace(fingerprint(), threads=torch.get_num_threads())
    return Record("tune", "now", "0", "m.pt", "0" * 64, machine, Target(), "none", "",
                  Latency(50, 1, 1, 1))  # fmt: skip
