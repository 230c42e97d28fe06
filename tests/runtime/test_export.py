"""One file of another form: the same numbers, written whole or not at all."""

from __future__ import annotations

import sys

import pytest
import torch
from modelspeed.backends import onnx_model
from modelspeed.backends.compiler import lacks_compiler
from modelspeed.checkpoints import staging
from modelspeed.core.errors import ArtifactError, MissingExtra, UsageError
from modelspeed.core.model_io import Inputs
from modelspeed.core.records import Latency, Machine, Record, Target
from modelspeed.graph.capture import capture
from modelspeed.graph.edits.integer_weights import quantize_weight
from modelspeed.graph.edits.quantization import quantize_input
from modelspeed.graph.lowering.int8 import largest_level
from modelspeed.graph.source import spelling
from modelspeed.runtime import export as exporting
from modelspeed.runtime.export import export
from torch import nn

RECORD = Record(
    "tune", "now", "0", "m.pt", "0" * 64, Machine("c", 1, 1, "cpu", "float32", "2", "3", "l"),
    Target(), "none", "", Latency(50, 1, 1, 1),
)  # fmt: skip


def saved(place, model, x):
    batch = torch.export.Dim("batch", min=1, max=64)
    shown = torch.cat([x, x])
    program = torch.export.export(model, (shown,), dynamic_shapes=({0: batch},))
    return staging.save(
        place / "fast", program=program, edits=[], record=RECORD, recipe_yaml="version: 1\n",
        inputs=Inputs((x,)), runtime="plain", reports={}, force=False,
    )  # fmt: skip


@pytest.fixture
def folder(tmp_path):
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)).eval()
    return saved(tmp_path, model, torch.ones(1, 3))


def outputs(folder):
    program = torch.export.load(folder / "model.pt2")
    return program.module()(torch.ones(5, 3)).detach()


def test_a_program_and_a_state_dict_hold_the_artifacts_weights(folder):
    path = export(folder, "pt2")
    assert path == folder.parent / "fast.pt2"
    assert torch.equal(torch.export.load(path).module()(torch.ones(5, 3)), outputs(folder))
    weights = torch.load(export(folder, "state-dict"), weights_only=True)
    assert set(weights) == {"0.weight", "0.bias", "2.weight", "2.bias"}


def test_onnx_computes_the_same_for_any_batch(folder):
    path = export(folder, "onnx")
    from onnx.reference import ReferenceEvaluator

    runs = ReferenceEvaluator(str(path))
    (found,) = runs.run(None, {runs.input_names[0]: torch.ones(5, 3).numpy()})
    torch.testing.assert_close(torch.from_numpy(found), outputs(folder))


def test_onnx_is_compared_in_onnx_runtime_before_it_is_put_in_place(folder, monkeypatch):
    seen = []

    class Wrong(onnx_model.OnnxSession):
        def __call__(self, *flat):
            seen.append(len(flat[0]))
            return [x + (len(flat[0]) > 1) for x in super().__call__(*flat)]

    monkeypatch.setattr(onnx_model, "OnnxSession", Wrong)
    with pytest.raises(ArtifactError, match=r"can't be written as ONNX: its outputs .* differ by"):
        export(folder, "onnx")
    assert set(seen) == {1, 2} and [p.name for p in folder.parent.iterdir()] == ["fast"]


def test_onnx_that_cannot_be_compared_is_written_and_that_is_said(folder, monkeypatch):
    said = []
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    onnx_model.onnxruntime.cache_clear()  # it is asked for once
    assert export(folder, "onnx", note=said.append).exists()
    assert len(said) == 1 and "not run to check it" in said[0] and "[onnxruntime]" in said[0]


def test_onnx_of_a_number_format_that_has_no_kernels_is_written_and_that_is_said(tmp_path):
    said = []
    x = torch.ones(1, 3, 4, 4, dtype=torch.float64)
    place = saved(tmp_path, nn.Conv2d(3, 4, 1).double().eval(), x)
    assert export(place, "onnx", note=said.append).exists()
    assert len(said) == 1 and "not run to check it" in said[0] and "NOT_IMPLEMENTED" in said[0]


def test_onnx_holds_integers_that_onnx_runtime_has_kernels_for(tmp_path):
    import onnx

    model = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 4)).eval()
    x = torch.randn(1, 16, generator=torch.Generator().manual_seed(0))
    module = capture(model, (x,))
    layers = [n for n in module.graph.nodes if "linear" in n.name]
    for node, zero_point in zip(layers, (largest_level() // 2, 0), strict=True):
        quantize_weight(module, node)
        quantize_input(module, node, 0, 0.03, zero_point, largest_level())
    path = export(saved(tmp_path, module, x), "onnx")
    made = tmp_path / "made.onnx"
    onnx_model.OnnxSession(str(path), optimized_model_filepath=str(made))
    kinds = [node.op_type for node in onnx.load(made).graph.node]
    assert kinds.count("QGemm") == 2 and not {"Gemm", "MatMul", "Div", "Round"} & set(kinds)
    weights = {x.name: x.data_type for x in onnx.load(path).graph.initializer}
    assert list(weights.values()).count(onnx.TensorProto.INT8) >= 2


def test_what_is_there_stays_without_force_and_after_a_failure(folder, monkeypatch):
    path = export(folder, "state-dict")
    before = path.read_bytes()
    with pytest.raises(UsageError, match="--force"):
        export(folder, "state-dict")

    def fail(*_args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", fail)
    with pytest.raises(ArtifactError, match="the disk is full"):
        export(folder, "state-dict", force=True)
    assert path.read_bytes() == before and len(list(folder.parent.iterdir())) == 2


def test_unknown_forms_and_missing_packages_are_named(folder, monkeypatch):
    with pytest.raises(UsageError, match="must be one of pt2, state-dict, onnx, python, aoti"):
        export(folder, "tflite")
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(MissingExtra, match=r"modelspeed\[onnx\]"):
        export(folder, "onnx")


def loaded(folder):
    scope = {"__file__": str(folder / "model.py")}
    exec(compile((folder / "model.py").read_text(), "model.py", "exec"), scope)
    return scope["load"]()


def test_the_source_is_a_folder_of_two_files_with_the_artifacts_keys(folder):
    path = export(folder, "python")
    assert path == folder.parent / "fast-python"
    assert sorted(p.name for p in path.iterdir()) == ["model.py", "model.safetensors"]
    made = loaded(path)
    assert torch.equal(made(torch.ones(5, 3)), outputs(folder))
    assert set(made.state_dict()) == {"0.weight", "0.bias", "2.weight", "2.bias"}


def test_the_source_replaces_an_export_with_force_and_nothing_else(folder):
    path = export(folder, "python")
    with pytest.raises(UsageError, match="--force"):
        export(folder, "python")
    assert export(folder, "python", force=True) == path
    (path / "notes.txt").write_text("mine")
    with pytest.raises(UsageError, match=r"holds `notes\.txt`"):
        export(folder, "python", force=True)
    with pytest.raises(UsageError, match="is not a folder"):
        export(folder, "python", out=folder / "recipe.yaml", force=True)
    assert (path / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize("wrong", ["torch.tanh", "torch.nothing"])
def test_source_that_computes_otherwise_is_not_written(folder, monkeypatch, wrong):
    path = export(folder, "python")
    before = (path / "model.py").read_bytes()
    monkeypatch.setattr(spelling, "NEURAL", set())
    monkeypatch.setitem(spelling.RENAMED, "relu", wrong)
    with pytest.raises(ArtifactError, match=r"can't be written as `model\.py`.*--format pt2"):
        export(folder, "python", force=True)
    assert (path / "model.py").read_bytes() == before
    assert sorted(p.name for p in folder.parent.iterdir()) == ["fast", "fast-python"]


@pytest.mark.skipif(lacks_compiler("cpu") is not None, reason="no C++ compiler")
@pytest.mark.filterwarnings("ignore")  # what torch's compiler says to itself
@pytest.mark.long
def test_a_compiled_package_gives_the_same_for_any_batch(folder):
    path = export(folder, "aoti")
    assert path == folder.parent / "fast.aoti.pt2"
    assert sorted(p.name for p in folder.parent.iterdir()) == ["fast", "fast.aoti.pt2"]
    runs = torch._inductor.aoti_load_package(str(path))
    torch.testing.assert_close(runs(torch.ones(5, 3)), outputs(folder))


def test_a_package_needs_a_compiler_and_its_ending(folder, monkeypatch):
    with pytest.raises(UsageError, match=r"must end in `\.pt2`"):
        export(folder, "aoti", out=folder.parent / "fast.so")
    monkeypatch.setattr(exporting, "lacks_compiler", lambda device: "needs a C++ compiler")
    with pytest.raises(UsageError, match=r"`--format aoti` needs a C.. compiler.*--format pt2"):
        export(folder, "aoti")


def test_a_second_file_with_weights_lies_beside_under_the_name_that_the_first_knows(folder):
    target = folder.parent / "m.onnx"

    def write(path):
        path.write_text(f"{path.name}.data")
        path.with_name(f"{path.name}.data").write_text("weights")

    exporting._whole(target, write)
    assert (folder.parent / target.read_text()).read_text() == "weights"
    assert len(list(folder.parent.iterdir())) == 3
    target.unlink()
    with pytest.raises(ArtifactError, match=r"`m\.onnx\.data` is in the way"):
        exporting._whole(target, write)
    assert len(list(folder.parent.iterdir())) == 2
