"""The promises every row of the registry keeps. A new back end is held to them by being a row."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

import pico
import pytest
import torch
from modelspeed.backends import registry
from modelspeed.backends.agreement import agreeing
from modelspeed.backends.registry import BACKENDS, NAMES, OFFERED, PLAIN, backend_of
from modelspeed.core.errors import MeasureError, UsageError
from modelspeed.core.model_io import Inputs
from modelspeed.core.runtimes import DEFAULT_RUNTIME, RUNTIMES
from modelspeed.graph.capture import capture, clone
from modelspeed.profiling.closeness import plain_outputs
from torch import nn
from torch._inductor import cpp_builder

ONE = Inputs.of((pico.images(1),))
BATCHES = (ONE, Inputs.of((pico.images(1, seed=2),)), Inputs.of((pico.images(3),)))
ROWS = pytest.mark.parametrize("backend", BACKENDS, ids=lambda b: b.name)
EVERY_NAME = pytest.mark.parametrize("name", NAMES)
COMPILING = [b for b in BACKENDS if b.needs_compiler]
PACKAGES = ("openvino", "onnxruntime")
pytestmark = pytest.mark.filterwarnings("ignore")  # what torch's compiler says to itself


@pytest.fixture(autouse=True)
def threads_come_back():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@cache
def graph():
    return capture(pico.net(["residual", "depthwise"]), tuple(ONE))


@cache
def blob(name):
    return registry.blob_of(graph(), ONE, name)


@cache
def prepared(name):
    """Once per name, with two threads; and the thread count after it."""
    torch.set_num_threads(2)
    runnable = registry.prepare(graph(), ONE, name)
    return runnable, torch.get_num_threads()


def needs_compiler(name):
    """Skips what compiles where nothing can be; all others run everywhere."""
    if registry.is_compiled(name) and (reason := backend_of(name).lacks("cpu")):
        pytest.skip(f"`{name}` {reason}")


def same(runnable, batches=BATCHES, module=None):
    module = module or graph()
    for inputs in batches:
        with torch.inference_mode():
            wanted, answers = inputs.call(module), [inputs.call(runnable) for _ in range(2)]
        for answer in answers:
            torch.testing.assert_close(answer, wanted, rtol=1e-4, atol=1e-5)


# What a row is


def test_names_are_unique_and_each_leads_to_its_row():
    assert len({b.name for b in BACKENDS}) == len(BACKENDS)
    assert len(set(NAMES)) == len(NAMES) == sum(len(b.known) for b in BACKENDS)
    for backend in BACKENDS:
        assert all(backend_of(name) is backend for name in backend.known)
        assert backend.name in backend.known and set(backend.packed) <= set(backend.known)


def test_names_in_artifacts_that_were_written_stay_valid():
    assert set(NAMES) >= {
        "plain", "lowered", "folded", "channels_last", "onednn", "onednn_channels_last",
        "cuda_graph", "cuda_graph_channels_last", "inductor", "openvino", "onnxruntime",
    }  # fmt: skip


def test_a_user_can_ask_for_what_the_registry_offers_and_for_nothing_else():
    assert set(OFFERED) == set(RUNTIMES)
    assert registry.is_compiled(DEFAULT_RUNTIME) is False and PLAIN in OFFERED
    with pytest.raises(UsageError, match="the runtime is `fast`; allowed are plain, "):
        backend_of("fast")


def test_every_back_end_in_the_folder_is_a_row():
    folder = Path(registry.__file__).parent
    classes = {
        node.name
        for path in folder.glob("*.py") if path.stem != "protocol"
        for node in ast.parse(path.read_text()).body if isinstance(node, ast.ClassDef)
        if {"lacks", "prepare"} & {f.name for f in node.body if isinstance(f, ast.FunctionDef)}
    }  # fmt: skip
    assert classes == {type(b).__name__ for b in BACKENDS}


@ROWS
@pytest.mark.parametrize("shape", [(1, 1, 12, 12), (2, 4)])
def test_names_worth_timing_are_names_of_the_row(backend, shape):
    model = pico.net([]) if len(shape) == 4 else nn.Linear(4, 4).eval()
    inputs = Inputs.of((torch.ones(shape),))
    names = backend.names(capture(model, tuple(inputs)), inputs)
    assert set(names) <= set(backend.known) and len(set(names)) == len(names)
    assert names or backend.lacks("cpu")


# What runs


@EVERY_NAME
def test_prepared_gives_the_same_twice_and_for_another_batch(name):
    needs_compiler(name)
    before = clone(graph()).state_dict()
    same(prepared(name)[0])
    for key, value in graph().state_dict().items():
        assert torch.equal(value, before[key]), "the graph itself was changed"


@EVERY_NAME
def test_the_graph_of_a_name_is_a_copy_that_gives_the_same(name):
    runnable = registry.lowered(graph(), ONE, name)
    assert runnable is not graph()
    same(runnable)


@EVERY_NAME
def test_threads_stay_as_they_were_and_one_is_enough(name):
    needs_compiler(name)
    runnable, after = prepared(name)
    assert after == 2
    torch.set_num_threads(1)
    same(runnable, BATCHES[:1])
    assert torch.get_num_threads() == 1


@EVERY_NAME
def test_the_blob_gives_the_same_and_quick_ones_have_none(name, monkeypatch):
    if not registry.is_compiled(name):
        assert blob(name) is None
        return
    needs_compiler(name)
    compiled = blob(name)
    assert isinstance(compiled, bytes) and compiled
    # It runs where nothing can be compiled.
    monkeypatch.setattr(type(backend_of(name)), "lacks", lambda self, device: "needs a compiler")
    same(registry.prepare(graph(), ONE, name, compiled))
    # Its weights are in it: beside another net's graph it still gives what it was made from.
    other = capture(pico.net(["residual", "depthwise"], seed=5), tuple(ONE))
    same(registry.prepare(other, ONE, name, compiled), BATCHES[:2])


# What fails


@EVERY_NAME
def test_a_kernel_that_refuses_is_a_sentence_and_never_an_error_of_its_own(name):
    two_channels = Inputs.of((torch.ones(1, 2, 12, 12),))
    reason = registry.ready(graph(), two_channels, name)
    assert isinstance(reason, str) and reason and "\n" not in reason
    with pytest.raises(MeasureError):
        agreeing(graph(), two_channels, name, plain_outputs(graph(), (ONE,)))


@ROWS
@pytest.mark.parametrize("kind", [RuntimeError, KeyError, AssertionError, NotImplementedError])
def test_whatever_a_back_end_raises_the_plain_graph_runs(backend, kind, monkeypatch):
    def fails(self, *_):
        raise kind("no kernel for this\nand a long trace")

    if backend.name != PLAIN:  # there is nothing behind the plain graph
        monkeypatch.setattr(type(backend), "prepare", fails)
        said = []
        name, runnable = registry.first_ready(graph(), ONE, (backend.name,), said.append)
        assert name == PLAIN and "no kernel for this" in said[0] and "trace" not in said[0]
        same(runnable)
    monkeypatch.setattr(type(backend), "prepare", fails)
    with pytest.raises(MeasureError, match="no kernel for this"):
        agreeing(graph(), ONE, backend.name, plain_outputs(graph(), (ONE,)))


@pytest.mark.parametrize("backend", COMPILING, ids=lambda b: b.name)
def test_a_damaged_blob_is_a_sentence(backend):
    assert "can't be loaded" in registry.ready(graph(), ONE, backend.name, b"no package")


@pytest.fixture
def bare(monkeypatch):
    """A machine without any compiler."""

    def refuse():
        raise RuntimeError("no working C++ compiler found")

    monkeypatch.setattr(cpp_builder, "get_cpp_compiler", refuse)
    monkeypatch.setattr("torch.utils._triton.has_triton", lambda: False)


@ROWS
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_what_is_missing_is_one_sentence_that_names_it(backend, device, bare):
    reason = backend.lacks(device)
    if reason is None:
        registry.requires(backend.name, device)
        return
    assert reason.startswith("needs ") and "\n" not in reason and not reason.endswith(".")
    with pytest.raises(UsageError) as caught:
        registry.requires(backend.name, device)
    text = str(caught.value)
    assert text.startswith(f"`--runtime {backend.name}` {reason}; ")
    assert f"--runtime {DEFAULT_RUNTIME}" in text


def test_what_compiles_lacks_a_compiler_here_and_the_rest_lacks_none(bare):
    missing = {b.name: b.lacks("cpu") for b in BACKENDS}
    assert "C++ compiler" in missing.pop("inductor")
    assert "triton" in backend_of("inductor").lacks("cuda")
    for name in PACKAGES:
        assert missing.pop(name) is None or "pip install" in backend_of(name).lacks("cpu")
    assert "CUDA" in missing.pop("cuda_graph") and backend_of("cuda_graph").lacks("cuda") is None
    assert set(missing.values()) == {None}


@ROWS
def test_an_artifact_for_what_is_missing_here_still_runs(backend, bare):
    if backend.lacks("cpu"):
        assert backend.names(graph(), ONE) == ()
    for name in backend.known:
        same(registry.prepare(graph(), ONE, name), BATCHES[1:])


# What the rooms above ask


def test_a_search_times_no_name_that_compiles_and_plain_stands_apart():
    names = registry.candidate_names(graph(), ONE)
    assert names and PLAIN not in names
    assert not any(registry.is_last(name) for name in names)
    assert registry.is_compiled("inductor") and registry.OTHERS == (*PACKAGES, "inductor")


def test_what_is_slow_to_prepare_waits_for_the_last_variant_and_a_compiler_for_the_users_word():
    assert not set(registry.candidate_names(graph(), ONE, "onnxruntime")) & {"onnxruntime"}
    here = backend_of("onnxruntime").lacks("cpu") is None
    assert registry.last_names(graph(), ONE, "auto") == (("onnxruntime",) if here else ())
    assert registry.last_names(graph(), ONE, "lowered") == ()


def test_the_furthest_lowering_is_the_last_packed_one_that_runs(monkeypatch):
    names = registry.candidate_names(graph(), ONE)
    packed = [n for n in names if n in backend_of(n).packed]
    assert registry.furthest_lowering(graph(), ONE) == (packed[-1] if packed else None)
    lowered = type(backend_of("lowered"))
    monkeypatch.setattr(lowered, "packed", ())
    assert registry.furthest_lowering(graph(), ONE) is None


def test_recordings_and_other_engines_serve_every_number_format():
    assert [b.name for b in BACKENDS if b.any_format] == [*PACKAGES, "cuda_graph"]
    assert registry.keeps_runtime("cuda_graph_channels_last")
    assert not registry.keeps_runtime("onednn")


def test_asked_for_by_name_an_artifact_loads_under_the_recorded_or_the_nearest():
    def chosen(asked, recorded):
        return registry.resolve(asked, recorded, graph(), ONE)

    assert chosen(None, "folded") == "folded" and chosen("plain", "folded") == "plain"
    assert chosen("lowered", "folded") == "folded" and chosen("onednn", "plain") == "onednn"
    furthest = registry.furthest_lowering(graph(), ONE) or PLAIN
    assert chosen("lowered", "plain") == chosen("lowered", "inductor") == furthest
    with pytest.raises(UsageError, match="`nothing`"):
        chosen("nothing", "plain")
